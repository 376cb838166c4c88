"""What the stages share: their task, clocks and memory of a device, and the arithmetic of training on it."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measure import Row, peak_memory, processor_clock

ARITHMETIC = ("fp32", "TF32", "AMP")


@dataclass(frozen=True)
class Task:
    """What a stage is asked for.

    Attributes:
        device: ``cuda`` or ``cpu``.
        tiny: at sizes that only show whether it runs; goals of speed and memory are not set.
        dino: a checkout of facebookresearch/dino, if there is one.
    """

    device: str
    tiny: bool = False
    dino: Path | None = None

    @property
    def clock(self) -> Callable[[Callable[[], object]], float]:
        """Seconds of a work on the device: between two CUDA events, or of the processor."""
        return processor_clock if self.device == "cpu" else event_clock

    def goal(self, value: float) -> float | None:
        """A goal of speed or memory, which holds at the true sizes on a GPU only."""
        return None if self.tiny or self.device == "cpu" else value

    def added_memory(self, work: Callable[[], object]) -> float:
        """Bytes by which a work raises the memory in use at its peak."""
        if self.device == "cpu":  # memory of a process does not shrink: all that it has needed so far
            work()
            return peak_memory()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - held)


def event_clock(work: Callable[[], object]) -> float:
    """Seconds between two CUDA events around a work."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def each(parts: Mapping[str, Iterator[Row]]) -> Iterator[Row]:
    """Rows of all parts of a stage, whichever fails.

    Raises:
        RuntimeError: at the end: some have failed; their tracebacks.
    """
    failures = []
    for name, rows in parts.items():
        try:
            yield from rows
        except (Exception, SystemExit):  # out of memory, no compiler, an operator that the device lacks, …
            failures.append(f"{name} failed: {traceback.format_exc(limit=-4)}")
    if failures:
        raise RuntimeError("\n".join(failures))


@contextmanager
def arithmetic(name: str, device: str) -> Iterator[None]:
    """``fp32`` without TF32, ``TF32``, or ``AMP``: autocast (float16, on the CPU bfloat16) with TF32 elsewhere."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if name == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = name != "fp32"
    dtype = torch.bfloat16 if device == "cpu" else torch.float16
    try:
        with torch.autocast(device, dtype=dtype, enabled=name == "AMP"):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
