"""Chooses the number format that a model trains quickest in, here and now.

bfloat16 takes half as long as float32 on one processor, and twenty times as long on another of the same maker.
"""

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.devices.race import race

AUTO = "auto"
_GAIN = 0.9  # of float32's time: below, bfloat16 is taken
_SHORT, _LONG = 3e7, 5e8  # floating-point operations of a trial, about


@dataclass(frozen=True)
class NumberFormat:
    """``float32``, ``bfloat16`` (autocast) or ``float16`` (with loss scaling too), and a clause that says why."""

    name: str
    why: str


def quickest_format(model: nn.Module) -> NumberFormat:
    """The format to train a model in on the device that it is on.

    CUDA: bfloat16 from compute capability 8.0 on, float16 from 7.0 on (no bfloat16 units), else float32. CPU: bfloat16
    if the commonest of the model's linear layers runs in less than 0.9 of float32's time, forward and backward, with as
    many threads as torch has now; takes under half a second. Other devices: float32.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = "bfloat16" if major >= 8 else "float16" if major >= 7 else "float32"
        return NumberFormat(name, f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}")
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    sizes = Counter((layer.in_features, layer.out_features) for layer in layers)
    if device.type != "cpu" or not sizes:
        return NumberFormat("float32", f"on {device.type} no other is tried")
    inputs, outputs = max(sizes, key=lambda size: sizes[size] * size[0] * size[1])
    seconds = _race_on_cpu(inputs, outputs)
    ratio = seconds["bfloat16"] / seconds["float32"]
    name = "bfloat16" if ratio < _GAIN else "float32"
    return NumberFormat(name, f"{inputs} x {outputs} products: bfloat16 takes {ratio:.2g} times as long as float32")


def _race_on_cpu(inputs: int, outputs: int) -> dict[str, float]:
    """Seconds of a linear layer, forward and backward, in both formats."""
    layer = nn.Linear(inputs, outputs)

    def run(half: bool, operations: int) -> None:
        rows = torch.ones(max(8, operations // (6 * inputs * outputs)), inputs, requires_grad=True)
        with torch.enable_grad(), quick_products(), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            out = layer(rows)
        out.backward(torch.ones_like(out))
        layer.zero_grad()

    formats = {"float32": lambda amount: run(False, amount), "bfloat16": lambda amount: run(True, amount)}
    return race(formats, int(_SHORT), int(_LONG))
