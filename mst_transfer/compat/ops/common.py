"""Shared by the operators: precision, access to torchvision's operators, and the advice for what is missing."""

from typing import Any

import torch
from torch import Tensor


class OpNotAvailableError(NotImplementedError):
    """An operator that only a compiled mmcv has."""


def torchvision_ops() -> Any:
    """torchvision's operators; the import that registers them happens at the first call."""
    import torchvision  # noqa: F401  registers torch.ops.torchvision

    return torch.ops.torchvision


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def advice(name: str) -> str:
    return (
        f"mmcv operator '{name}' is not available: mmcv was installed without compiled operators, and "
        "no operator of torchvision is taken in its place. To get it, build mmcv (needs a C++ compiler, takes long): "
        "pip install 'setuptools<82' wheel ninja && pip download --no-deps --no-build-isolation --no-binary mmcv "
        "'mmcv>=2.0.0rc4,<2.2'; unpack the archive; with torch>=2.14 replace -std=c++14 and -std=c++17 by -std=c++20 "
        "in its setup.py; there: MMCV_WITH_OPS=1 pip wheel --no-build-isolation --no-deps . && "
        "pip uninstall -y mmcv-lite && pip install --no-deps mmcv-*.whl"
    )
