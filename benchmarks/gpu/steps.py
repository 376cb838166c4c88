"""Stage ``steps``: a training step of MST and of its DINO part against facebookresearch/dino's own, on one device.

Time between CUDA events, medians of turns, and memory that a step adds. DINO runs as it does by default, in float16;
ours in bfloat16 and float16, with and without compiled blocks. What matters most comes first.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.dino_step import DinoStep, dino_code
from benchmarks.gpu.device import Task, each
from benchmarks.measure import Row, alone, compare, take_turns
from benchmarks.step import FULL, QUICK, OurStep

PEER = "dino fp16"
IMAGES_PER_SECOND = 1900
GOALS = {"MST": 1.8, "DINO part": 2.2}  # at batch 256, compiled, in bfloat16
TURNS = (  # batch, format, compiled; compiling takes most of the time
    (256, "bfloat16", True),
    (256, "bfloat16", False),
    (256, "float16", False),
    (64, "bfloat16", False),
    (64, "bfloat16", True),
    (256, "float16", True),
)


def views_of(work: dict[str, Any], batch: int, device: str) -> dict[str, Tensor]:
    """Random crops on the device."""
    large, small = work["sizes"]
    options: dict[str, Any] = dict(dtype=torch.uint8, device=device)
    return {
        "global_crops": torch.randint(0, 256, (batch, 2, 3, large, large), **options),
        "local_crops": torch.randint(0, 256, (batch, work["num_local"], 3, small, small), **options),
        "index": torch.arange(batch, device=device),
    }


def rows_of(
    task: Task, work: dict[str, Any], peer: DinoStep | None, full_batch: int, dtype: str, compiled: bool
) -> Iterator[Row]:
    """Time and memory of the three steps at one batch, in one format."""
    torch._dynamo.reset()
    batch = 2 if task.tiny else full_batch
    views, works = views_of(work, batch, task.device), dict[str, Callable[[], object]]()
    for name in GOALS:
        vit = work["vit"] | {"compile_blocks": compiled}
        ours = OurStep(name == "MST", dtype, work | {"vit": vit}, task.device)
        works[name] = functools.partial(ours, views)
    if peer is not None:
        normalise = ours.model.normalise
        images = [*normalise(views["global_crops"]).unbind(1), *normalise(views["local_crops"]).unbind(1)]
        works[PEER] = functools.partial(peer.step, images)
    times = take_turns(works, 1 if task.tiny else 7, task.clock, warm_up=0 if task.tiny else 3)
    memory = {name: [task.added_memory(step)] for name, step in works.items()}
    best = (full_batch, dtype, compiled) == TURNS[0]
    for name, goal in GOALS.items():
        title = f"step, batch {batch}, {dtype}" + ", compiled" * compiled
        note = f"{batch * len(times[name]) / sum(times[name]):.0f} images/s"
        if peer is None:
            yield alone(title, (name, times[name]), note=f"{note}; no peer: give --dino CHECKOUT")
            yield alone(f"{title}: added memory", (name, memory[name]), unit="GB", scale=1e-9)
            continue
        wanted = task.goal(goal) if best else None
        yield compare(title, (PEER, times[PEER]), (name, times[name]), unit="ms", scale=1e3, goal=wanted, note=note)
        sizes = (PEER, memory[PEER]), (name, memory[name])
        yield compare(f"{title}: added memory", *sizes, unit="GB", scale=1e-9)
    if best:
        limit = [batch / IMAGES_PER_SECOND] * len(times["MST"])
        names = (f"{IMAGES_PER_SECOND} images/s", limit), ("MST", times["MST"])
        yield compare(f"{title}: an image", *names, unit="ms", scale=1e3 / batch, goal=task.goal(1.0))


def run(task: Task) -> Iterator[Row]:
    """Rows of all batches and formats; one that fails does not stop the others."""
    work = QUICK if task.tiny else FULL
    with ExitStack() as stack:
        if task.tiny and task.device == "cpu":  # graphs are taken and run; code for them would take minutes
            stack.enter_context(
                mock.patch.object(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
            )
        torch.backends.cudnn.benchmark = True  # as both do
        stack.enter_context(torch._dynamo.config.patch(recompile_limit=64))  # a process usually has one model
        peer = None
        if task.dino is not None:
            code = stack.enter_context(dino_code(task.dino, task.device))
            vit = work["vit"] | {"img_size": [work["sizes"][0]]}
            peer = DinoStep(code, vit, 2 + work["num_local"], work["out_dim"], device=task.device, fp16=True)
        turns = TURNS[:3] if task.tiny else TURNS
        yield from each({str(turn): rows_of(task, work, peer, *turn) for turn in turns})
