"""Reads what the processor says of itself, and tells the C library how its memory is used."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def cpu_info(field: str) -> str:
    """A line of Linux's ``/proc/cpuinfo`` such as ``model name``, of the first core; empty if there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def keep_freed_memory() -> None:
    """Lets glibc keep what this process frees, for the next step to take, as torch does on a GPU.

    By default buffers of 32 MB and more go back to the system, which fills their pages with zeros when they are asked
    for again: a tenth of a step. Other C libraries are left as they are.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has no mallopt
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_THRESHOLD, 2**30)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)
