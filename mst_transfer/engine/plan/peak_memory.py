"""The most memory that was in use: on a GPU what torch allocated there, else the growth of this process."""

from __future__ import annotations

import resource
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
