"""One training step against facebookresearch/dino: the DINO part alone, and all of MST.

The same network, views, batch and optimiser: ViT-S/16, 2 x 224 + 8 x 96 px, 65,536 prototypes. DINO's code runs in
fp32 as it does on a CPU, and in bf16 by autocast around its step; ours in both and in the format that pre-training
chooses here, with what the default config switches on. Each format is compared with DINO's in the same, the chosen one
with DINO's quicker. The limit is the processor's own rate of matrix products, measured in the same round.
"""

import itertools
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
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

GOALS = {"DINO part": 1.3, "MST": 1.1}  # of the chosen format, against facebookresearch/dino in its quicker one
AUTO_GOAL = 0.95  # of the better fixed format's time over that of the format that pre-training chooses
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
    """A step as ``pretrain.run.loop.PretrainLoop`` takes it.

    Args:
        full: with mask and decoder.
        dtype: of autocast, None for fp32, ``auto`` for what pre-training would choose here.
        work: see ``FULL``; ``vit`` may hold any option of the backbone.
        device: of the model.
    """

    def __init__(self, full: bool, dtype: str | None, work: dict[str, Any], device: str = "cpu") -> None:
        backbone = dict(arch="vit_small_patch16_224", img_size=work["sizes"][0], drop_path_rate=0.1)
        self.model = MST(
            backbone=backbone | work["vit"],
            head=dict(out_dim=work["out_dim"]),
            masking=dict(mode="attention" if full else "none"),
            decoder={} if full else None,
        )
        self.model.to(device).train()
        optimizer = dict(type="AdamW", betas=(0.9, 0.999), fused=True)
        build = PretrainOptimWrapperConstructor(
            dict(type="pretrain.PretrainOptimWrapper", optimizer=optimizer, dtype=dtype)
        )
        self.optim: PretrainOptimWrapper = build(self.model)
        student = self.model.student.backbone
        self.optim.settle_format(student, [student.num_patches(side, side) for side in work["sizes"]])
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
    chosen: dict[str, str] = {}
    for name in GOALS:
        for dtype, short in ((None, "fp32"), ("bfloat16", "bf16"), ("auto", "auto")):
            ours = OurStep(name == "MST", dtype, work)
            steps[f"{name} {short}"] = partial(ours, views)
            flops[f"{name} {short}"] = count_flops(steps[f"{name} {short}"])
        chosen[name] = f"{ours.optim.format.name}: {ours.optim.format.why}"
    with ExitStack() as stack:
        if dino is not None:
            code = stack.enter_context(dino_code(dino))
            peer = DinoStep(code, work["vit"] | {"img_size": [large]}, 2 + num_local, work["out_dim"])
            normalise = OurStep(False, None, QUICK).model.normalise
            images = [*normalise(views["global_crops"]).unbind(1), *normalise(views["local_crops"]).unbind(1)]

            def in_bf16() -> None:
                with torch.autocast("cpu", torch.bfloat16):
                    peer.step(images)

            steps = {"dino fp32": lambda: peer.step(images), "dino bf16": in_bf16, **steps}
        times = take_turns(steps, 1 if quick else rounds, processor_clock)
    rates = {"fp32": matrix_rate(torch.float32), "bf16": matrix_rate(torch.bfloat16)}
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    rows = []
    title = f"training step, batch {batch}, 2x{large} + {num_local}x{small}"
    for name, short in itertools.product(GOALS, rates):
        ours_here, rate = f"{name} {short}", rates[short]
        limit = flops[ours_here] / rate
        note = (
            f"{flops[ours_here] / 1e9:.0f} GFLOP = {limit:.2f} s at the measured {rate / 1e9:.0f} GFLOP/s: "
            f"{limit / medians[ours_here]:.0%} of that"
        )
        if dino is None:
            rows.append(alone(title, (ours_here, times[ours_here]), note=f"{note}; no peer: give --dino CHECKOUT"))
        else:
            peers = (f"dino {short}", times[f"dino {short}"])
            rows.append(compare(title, peers, (ours_here, times[ours_here]), note=note))
    for name, why in chosen.items():
        auto = (f"{name} auto", times[f"{name} auto"])
        for ours_or_dino, goal in ((name, AUTO_GOAL), ("dino", GOALS[name])):
            fixed = [f"{ours_or_dino} {short}" for short in rates if f"{ours_or_dino} {short}" in times]
            if fixed:
                best = min(fixed, key=medians.__getitem__)
                goal_here = None if quick else goal
                rows.append(compare(title, (best, times[best]), auto, goal=goal_here, note=why))
    return rows
