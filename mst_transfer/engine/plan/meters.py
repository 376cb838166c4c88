"""Measures the time of training steps and the most memory that was in use."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def now() -> float:
    """Seconds, with the work of the device done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class StepClock:
    """Times of steps and of waiting for data, input shapes and losses, taken by a hook."""

    def __init__(self) -> None:
        self.compute: list[float] = []
        self.waits: list[float] = []
        self.shapes: list[tuple[int, ...]] = []
        self.losses: list[dict[str, float]] = []
        self._started = self._ended = 0.0

    def before(self) -> None:
        self._started = now()
        if self._ended:
            self.waits.append(self._started - self._ended)

    def after(self, outputs: dict[str, Any]) -> None:
        self._ended = now()
        self.compute.append(self._ended - self._started)
        self.losses.append({name: _number(value) for name, value in outputs.items() if "loss" in name})

    def look(self, batch: Any) -> None:
        """Notes the shape of the padded inputs that the model sees, ``[B, C, H, W]``."""
        inputs = batch["inputs"] if isinstance(batch, dict) else batch
        self.shapes.append(tuple(getattr(inputs, "shape", ())))

    def hook(self) -> Any:
        """The hook of mmengine that calls this clock."""
        from mmengine.hooks import Hook

        clock = self

        class StepClockHook(Hook):
            """Calls the clock around each step."""

            def before_train(self, runner: Any) -> None:
                model = getattr(runner.model, "module", runner.model)
                self._handle = model.data_preprocessor.register_forward_hook(
                    lambda _module, _args, out: clock.look(out)
                )

            def after_train(self, runner: Any) -> None:
                self._handle.remove()

            def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
                clock.before()

            def after_train_iter(
                self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
            ) -> None:
                clock.after(outputs)

        return StepClockHook()


def _number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)


class PeakMemory:
    """Measures from its making, or from the last :meth:`reset`.

    ``unit`` says what the number is. On the CPU it is the growth of this process's resident memory, data loader
    workers left out; where the kernel cannot reset its peak (no ``/proc/self/clear_refs``), a peak that was higher
    before hides a lower one now.
    """

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self.unit = "GPU memory allocated by torch" if self._cuda else "growth of resident memory (CPU)"
        self._start = 0
        self._baseline()

    def _baseline(self) -> None:
        if self._cuda:
            self._cuda.reset_peak_memory_stats()
            return
        try:
            _CLEAR.write_text("5")  # "5": forget the peak
        except OSError:
            pass
        if not self._start:
            self._start = _field("VmRSS") or _peak()

    def reset(self) -> None:
        """Forgets the peak so far; what was in use at the beginning still counts as nothing."""
        self._baseline()

    def read(self) -> int:
        """Bytes."""
        if self._cuda:
            return int(self._cuda.max_memory_allocated())
        return max(_peak() - self._start, 0)


def _peak() -> int:
    return _field("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _field(name: str) -> int:
    """A field of this process's status, in bytes; 0 where there is none."""
    if not _STATUS.is_file():
        return 0
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0
