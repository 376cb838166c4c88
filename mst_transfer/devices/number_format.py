"""Chooses the number format that a model trains quickest in, here and now.

bfloat16 takes half as long as float32 on one processor, and twenty times as long on another of the same maker.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import Block
from torch import nn

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.devices.race import race

AUTO = "auto"
_GAIN = 0.9  # of float32's time: below, bfloat16 is taken
_SHORT, _LONG = 1e8, 2e9  # floating-point operations of a trial, about
_WIDEST = 384  # of a block that is tried: in wider ones products weigh more still


@dataclass(frozen=True)
class NumberFormat:
    """``float32``, ``bfloat16`` (autocast) or ``float16`` (with loss scaling too), and a clause that says why."""

    name: str
    why: str


def quickest_format(model: nn.Module, tokens: Sequence[int] = (196,)) -> NumberFormat:
    """The format to train a model in on the device that it is on.

    CUDA: bfloat16 from compute capability 8.0 on, float16 from 7.0 on (no bfloat16 units), else float32. CPU: bfloat16
    if a transformer block of the model's commonest width runs in less than 0.9 of float32's time, forward and backward,
    with as many threads as torch has now; takes under half a second. Other devices: float32.

    Args:
        model: any; its linear layers say the width.
        tokens: that attend to each other, for each size of views; a Swin's windows say it themselves.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        return cuda_format(device)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    sizes = Counter((layer.in_features, layer.out_features) for layer in layers)
    if device.type != "cpu" or not sizes:
        return NumberFormat("float32", f"on {device.type} no other is tried")
    commonest = max(sizes, key=lambda size: sizes[size] * size[0] * size[1])
    windows = {module.window_area for module in model.modules() if isinstance(module, WindowAttention)}
    width = min(*commonest, _WIDEST)
    seconds = _race_on_cpu(width, sorted(windows or tokens))
    ratio = seconds["bfloat16"] / seconds["float32"]
    name = "bfloat16" if ratio < _GAIN else "float32"
    return NumberFormat(name, f"a block of width {width}: bfloat16 takes {ratio:.2g} times as long as float32")


def cuda_format(device: torch.device | None = None) -> NumberFormat:
    """The 16-bit format that a GPU has units for, else float32."""
    major, minor = torch.cuda.get_device_capability(device)
    name = "bfloat16" if major >= 8 else "float16" if major >= 7 else "float32"
    return NumberFormat(name, f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}")


def set_tf32(allowed: bool, device: torch.device) -> str:
    """Lets CUDA round the factors of float32's products, matrices' and convolutions', to TF32's 10 bits, or forbids it.

    Returns:
        A sentence for the log; empty on other devices, where nothing changes.
    """
    if device.type != "cuda":
        return ""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    return (
        f"products of float32 {'round to TF32: optim_wrapper.tf32=False keeps them exact' if allowed else 'are exact'}"
    )


def _race_on_cpu(width: int, tokens: Sequence[int]) -> dict[str, float]:
    """Seconds of a block, forward and backward, in both formats: products alone would promise small nets too much."""
    block = Block(width, num_heads=max(1, width // 64) if width % 64 == 0 else 1, qkv_bias=True)
    cost = 72 * width**2  # operations a token of the block's products, forward and backward

    def run(half: bool, operations: int) -> None:
        lengths = [length for length in tokens if cost * length <= 1.3 * operations] or [min(tokens)]
        batches = [
            torch.ones(max(1, operations // (cost * length * len(lengths))), length, width, requires_grad=True)
            for length in lengths
        ]
        block.attn.fused_attn = not half  # as pre-training chooses: probes.attention.choose_kernel
        with torch.enable_grad(), quick_products(), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            outs = [block(batch) for batch in batches]
        torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])
        block.zero_grad()

    formats = {"float32": lambda amount: run(False, amount), "bfloat16": lambda amount: run(True, amount)}
    return race(formats, int(_SHORT), int(_LONG))
