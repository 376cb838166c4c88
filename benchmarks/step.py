"""One training step against facebookresearch/dino: the DINO part alone, and all of MST.

The same network, views, batch and optimiser: ViT-S/16, 2 x 224 + 8 x 96 px, 65,536 prototypes. DINO's code runs in
fp32 as it does on a CPU; ours in fp32 and in bf16, with what the default config switches on. The limit is the
processor's own rate of matrix products, measured in the same round.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.dino_step import DinoStep, dino_code
from benchmarks.measure import Row, alone, compare, processor_clock, take_turns
from mst_transfer.devices.onednn_products import quick_products
from pretrain.model import MST
from pretrain.run.optim import PretrainOptimWrapper, PretrainOptimWrapperConstructor

GOALS = {"DINO part fp32": 1.6, "DINO part bf16": 2.5, "MST fp32": 1.3, "MST bf16": 2.0}
FULL: dict[str, Any] = dict(
    batch=4,
    num_local=8,
    sizes=(224, 96),
    out_dim=65536,
    vit=dict(patch_size=16, embed_dim=384, depth=12, num_heads=6),
)
QUICK: dict[str, Any] = dict(
    batch=2, num_local=2, sizes=(64, 32), out_dim=512, vit=dict(patch_size=16, embed_dim=48, depth=2, num_heads=3)
)


class OurStep:
    """A step as :class:`pretrain.run.loop.PretrainLoop` takes it.

    Args:
        full: with mask and decoder.
        dtype: of autocast, None for fp32.
        work: see ``FULL``.
    """

    def __init__(self, full: bool, dtype: str | None, work: dict[str, Any]) -> None:
        vit = work["vit"]
        self.model = MST(
            backbone=dict(arch="vit_small_patch16_224", img_size=work["sizes"][0], drop_path_rate=0.1, **vit),
            head=dict(out_dim=work["out_dim"]),
            masking=dict(mode="attention" if full else "none"),
            decoder={} if full else None,
        ).train()
        optimizer = dict(type="AdamW", betas=(0.9, 0.999), fused=True)
        build = PretrainOptimWrapperConstructor(
            dict(type="pretrain.PretrainOptimWrapper", optimizer=optimizer, dtype=dtype)
        )
        self.optim: PretrainOptimWrapper = build(self.model)
        self.optim.set_hyperparameters(5e-4, 0.04)
        self.number = 0

    def __call__(self, views: dict[str, Tensor]) -> float:
        self.optim.zero_grad()
        with self.optim.autocast():
            losses = self.model(**views, step=self.number)
        self.optim.backward(losses["loss"])
        self.optim.clip_gradients()
        self.optim.step()
        self.model.dino_loss.update_center()
        self.model.update_teacher(0.996)
        self.number += 1
        return losses["loss"].item()


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating point operations a second of processor time, in a square product."""
    a = torch.randn(size, size).to(dtype)
    b = torch.randn(size, size).to(dtype)
    with quick_products():
        (seconds,) = take_turns({"": lambda: F.linear(a, b)}, 5, processor_clock).values()
    return 2 * size**3 / statistics.median(seconds)


def count_flops(work: Callable[[], object]) -> int:
    """Floating point operations of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def run(quick: bool = False, dino: Path | None = None, rounds: int = 5) -> list[Row]:
    """Rows for the table; without a checkout of DINO there is nothing to compare with."""
    work = QUICK if quick else FULL
    batch, num_local, (large, small) = work["batch"], work["num_local"], work["sizes"]
    torch.manual_seed(0)
    views = {
        "global_crops": torch.randint(0, 256, (batch, 2, 3, large, large), dtype=torch.uint8),
        "local_crops": torch.randint(0, 256, (batch, num_local, 3, small, small), dtype=torch.uint8),
        "index": torch.arange(batch),
    }
    steps: dict[str, Callable[[], object]] = {}
    flops: dict[str, int] = {}
    for name, full in (("DINO part", False), ("MST", True)):
        for dtype, short in ((None, "fp32"), ("bfloat16", "bf16")):
            ours = OurStep(full, dtype, work)
            steps[f"{name} {short}"] = lambda ours=ours: ours(views)
            flops[f"{name} {short}"] = count_flops(steps[f"{name} {short}"])
    with ExitStack() as stack:
        if dino is not None:
            code = stack.enter_context(dino_code(dino))
            peer = DinoStep(code, work["vit"] | {"img_size": [large]}, 2 + num_local, work["out_dim"])
            normalise = OurStep(False, None, QUICK).model.normalise
            images = [*normalise(views["global_crops"]).unbind(1), *normalise(views["local_crops"]).unbind(1)]
            steps = {"dino": lambda: peer.step(images), **steps}
        times = take_turns(steps, 1 if quick else rounds, processor_clock)
    rates = {"fp32": matrix_rate(torch.float32), "bf16": matrix_rate(torch.bfloat16)}
    rows = []
    title = f"training step, batch {batch}, 2x{large} + {num_local}x{small}"
    for name, goal in GOALS.items():
        limit = flops[name] / rates[name[-4:]]
        share = limit / statistics.median(times[name])
        rate = rates[name[-4:]] / 1e9
        note = f"{flops[name] / 1e9:.0f} GFLOP = {limit:.2f} s at the measured {rate:.0f} GFLOP/s: {share:.0%} of that"
        if dino is None:
            rows.append(alone(title, (name, times[name]), note=f"{note}; no peer: give --dino CHECKOUT"))
        else:
            goal_here = None if quick else goal
            rows.append(compare(title, ("dino fp32", times["dino"]), (name, times[name]), goal=goal_here, note=note))
    return rows
