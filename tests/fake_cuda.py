"""CUDA tensors without a GPU: shapes, devices and number formats are real, values are not.

Forward passes go through the branches and the autocast of CUDA. Asking for a value, or mixing devices, raises. A model
is built on the CPU and moved by ``to_fake_cuda``. The backward pass does not work.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from simulated import require
from torch import Tensor, nn

require("_subclasses.fake_tensor.FakeTensorMode", "cuda.amp.common.amp_definitely_not_available")
FakeTensorMode = torch._subclasses.fake_tensor.FakeTensorMode


@contextmanager
def fake_cuda(dtype: torch.dtype | None = None) -> Iterator[FakeTensorMode]:
    """In this context tensors of device ``cuda`` can be made; with a dtype also CUDA's autocast."""
    no = patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    with no, patch("torch.cuda.is_bf16_supported", lambda *_, **__: True), patch_autocast():
        with FakeTensorMode(allow_non_fake_inputs=False) as mode:
            with torch.autocast("cuda", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                yield mode


@contextmanager
def patch_autocast() -> Iterator[None]:
    """torch's own autocast switches itself off where it finds no GPU."""
    module = sys.modules["torch.amp.autocast_mode"]
    if not hasattr(module, "amp_definitely_not_available"):
        yield
        return
    with patch.object(module, "amp_definitely_not_available", lambda: False):
        yield


def to_fake_cuda(model: nn.Module) -> nn.Module:
    """Puts tensors without values in the place of parameters and buffers; call it inside of ``fake_cuda``."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                fake = nn.Parameter(_fake(parameter), parameter.requires_grad)
                module._parameters[name] = fake
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = _fake(buffer)
    return model


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
