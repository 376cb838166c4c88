"""Losses in single precision under autocast.

Autocast itself computes cross-entropies and sums in float32, yet products and quotients of a Dice or focal loss stay
in half precision, where sums over a mask overflow and small probabilities vanish. The libraries' loss modules work
element by element, so that float32 inputs are all it takes.
"""

from typing import Any

import torch
from torch import nn

_HALVES = (torch.float16, torch.bfloat16)


def losses_in_fp32(model: nn.Module) -> list[str]:
    """Makes every loss module of a model see float32 where it would get half precision.

    Returns:
        Names of the loss modules.
    """
    names = []
    for name, module in model.named_modules():
        if is_loss(module):
            names.append(name)
            if not any(hook is _cast for hook in module._forward_pre_hooks.values()):
                module.register_forward_pre_hook(_cast, with_kwargs=True)
    return names


def is_loss(module: nn.Module) -> bool:
    """Whether it is one of mmdet's or mmseg's losses, torch's, or one's own called ``…Loss``."""
    return ".losses." in type(module).__module__ or type(module).__name__.endswith("Loss")


def _cast(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return tuple(map(_float, args)), {name: _float(value) for name, value in kwargs.items()}


def _float(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in _HALVES:
        return value.float()
    if type(value) in (list, tuple):
        return type(value)(map(_float, value))
    return value
