"""Reads what the processor says of itself."""

from pathlib import Path


def cpu_info(field: str) -> str:
    """A line of Linux's ``/proc/cpuinfo`` such as ``model name``, of the first core; empty if there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
