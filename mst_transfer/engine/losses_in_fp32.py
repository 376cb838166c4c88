"""Losses and regions of interest in single precision under autocast.

Autocast itself computes cross-entropies and sums in float32, yet products and quotients of a Dice or focal loss stay
in half precision, where sums over a mask overflow and small probabilities vanish. The libraries' loss modules work
element by element, so that float32 inputs are all it takes.

mmdet rounds boxes to the format of the feature maps before it looks up what lies in them: in bfloat16 to 4 pixels from
512 on, which moved features of boxes of 14 to 64 px by a fifth.
"""

from typing import Any

import torch
from torch import nn

_HALVES = (torch.float16, torch.bfloat16)


def losses_in_fp32(model: nn.Module) -> None:
    """Makes a model's losses (mmdet's, mmseg's, torch's, one's own called ``…Loss``) see float32 for half precision.

    And its extractors of regions of interest (``…RoIExtractor``).
    """
    for module in model.modules():
        if ".losses." in type(module).__module__ or type(module).__name__.endswith(("Loss", "RoIExtractor")):
            module.register_forward_pre_hook(_cast, with_kwargs=True)


def _cast(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return tuple(map(_float, args)), {name: _float(value) for name, value in kwargs.items()}


def _float(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in _HALVES:
        return value.float()
    if type(value) in (list, tuple):
        return type(value)(map(_float, value))
    return value
