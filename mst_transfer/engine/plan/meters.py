"""Measures the time of training steps and the most memory that was in use."""

import re
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def now() -> float:
    """Seconds, with the work of the device done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class StepClock(Hook):
    """Notes the seconds of each step, its losses, and the shape of the padded inputs ``[B, C, H, W]`` of the model."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.shapes: list[tuple[int, ...]] = []
        self.losses: list[dict[str, float]] = []

    def before_train(self, runner: Any) -> None:
        """Looks at what comes out of the model's preprocessor."""
        model = getattr(runner.model, "module", runner.model)
        self._handle = model.data_preprocessor.register_forward_hook(self._note_shape)

    def after_train(self, runner: Any) -> None:
        """Looks no longer."""
        self._handle.remove()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Starts the clock."""
        self._started = now()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stops the clock."""
        self.seconds.append(now() - self._started)
        self.losses.append({name: torch.as_tensor(value).item() for name, value in outputs.items() if "loss" in name})

    def _note_shape(self, _module: Any, _args: Any, batch: Any) -> None:
        inputs = batch["inputs"] if isinstance(batch, dict) else batch
        self.shapes.append(tuple(getattr(inputs, "shape", ())))


class PeakMemory:
    """Measures bytes at the peak, from its making or from the last ``reset``.

    On the CPU they are the growth of this process's resident memory, data loader workers left out; where the kernel
    cannot reset its peak (no ``/proc/self/clear_refs``), a peak that was higher before hides a lower one now.
    """

    def __init__(self) -> None:
        self.reset()
        self._start = _status("VmRSS") or _peak()

    def reset(self) -> None:
        """Forgets the peak so far; what was in use at the beginning still counts as nothing."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            with suppress(OSError):
                _CLEAR.write_text("5")  # "5": forget the peak

    def read(self) -> int:
        """Bytes."""
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else max(_peak() - self._start, 0)


def _peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int:
    """A field of this process's status, in bytes; 0 where there is none."""
    text = _STATUS.read_text(encoding="ascii", errors="replace") if _STATUS.is_file() else ""
    found = re.search(rf"^{name}:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
