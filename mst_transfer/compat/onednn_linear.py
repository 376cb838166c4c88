"""Linear layers through oneDNN on processors that are not Intel's.

PyTorch multiplies float32 matrices on the CPU with MKL, which takes a slower path on AMD; its convolutions use oneDNN,
which does not. On an AMD EPYC with AVX-512 a ViT-S's linear layers ran at 210 instead of 95 GFLOP/s.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_MIN_MULTIPLICATIONS = 2**22  # below, the call costs more than it saves


class OneDNNLinear(TorchFunctionMode):
    """Within this context ``F.linear`` uses oneDNN where that is quicker: equal to rounding.

    That is for float32 on the CPU, without gradients or autocast, on an x86-64 processor of another maker than Intel.
    Elsewhere the context changes nothing.
    """

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.linear and slow_mkl():
            inputs, weight, bias = _arguments(*args, **(kwargs or {}))
            if _suits(inputs, weight):
                rows = inputs.reshape(-1, inputs.shape[-1])
                out = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
                return out.view(*inputs.shape[:-1], len(weight))
        return func(*args, **(kwargs or {}))


def _arguments(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The arguments of ``F.linear``."""
    return input, weight, bias


def _suits(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.numel() * len(weight) >= _MIN_MULTIPLICATIONS
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not (torch.jit.is_tracing() or torch.compiler.is_compiling())
    )


@functools.cache
def slow_mkl() -> bool:
    """Whether this process multiplies with MKL on a processor of another maker, and oneDNN is there."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and _maker() not in ("", "GenuineIntel")


def _maker() -> str:
    """Of the processor, as it names itself; empty if unknown."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    return "AuthenticAMD" if "AuthenticAMD" in platform.processor() else ""
