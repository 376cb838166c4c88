"""Timings that take turns, and the rows, tables and files that come of them."""

import gc
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mst_transfer.devices.processor import cpu_info

PACKAGES = ("torch", "torchvision", "timm", "mmengine", "mmdet", "mmsegmentation", "opencv-python", "pycocotools")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what was done, with its sizes.
        peer: what users have today.
        ours: what was compared with it.
        peer_value: the peer's median, in ``unit``; None if the peer was not measured.
        our_value: ours; None if nothing was measured, as the note says.
        unit: ``s``, ``ms/image``, ``GB``, …; smaller is better.
        ratio: median over the rounds of peer / ours; None without a peer.
        spread: smallest and largest ratio of a round.
        goal: smallest ratio that the project wants; None if it has set none.
        note: why a goal is missed, which limit is how near, …
    """

    work: str
    peer: str
    ours: str
    peer_value: float | None
    our_value: float | None
    unit: str
    ratio: float | None
    spread: tuple[float, float] | None
    goal: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or empty where there is nothing to compare."""
        if self.goal is None or self.ratio is None:
            return ""
        return "met" if self.ratio >= self.goal else "missed"


def wall_clock(work: Callable[[], object]) -> float:
    """Seconds that went by."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor_clock(work: Callable[[], object]) -> float:
    """Seconds of processor time of this process: what other programs take does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def take_turns(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[Callable[[], object]], float] = wall_clock,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Times of several works, one after the other within a round: what slows the machine down slows all of them.

    Args:
        works: name → what to do once.
        rounds: that count, at least 1.
        clock: returns the seconds of a work.
        warm_up: rounds before those that count.

    Returns:
        Name → seconds of each round.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm_up + rounds):
        for name, work in works.items():
            gc.collect()
            seconds = clock(work)
            if number >= warm_up:
                times[name].append(seconds)
    return times


def compare(
    work: str,
    peer: tuple[str, Sequence[float]],
    ours: tuple[str, Sequence[float]],
    *,
    unit: str = "s",
    scale: float = 1.0,
    goal: float | None = None,
    note: str = "",
) -> Row:
    """A row from the rounds of two competitors.

    Args:
        work: what was done.
        peer, ours: name, and seconds of each round.
        unit: of the values shown.
        scale: seconds to ``unit``, e.g. ``1e3 / images``.
        goal: wanted ratio.
        note: see ``Row``.
    """
    ratios = [p / o for p, o in zip(peer[1], ours[1], strict=True)]
    return Row(
        work,
        peer[0],
        ours[0],
        statistics.median(peer[1]) * scale,
        statistics.median(ours[1]) * scale,
        unit,
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        goal,
        note,
    )


def alone(work: str, ours: tuple[str, Sequence[float]], *, unit: str = "s", scale: float = 1.0, note: str = "") -> Row:
    """A row without a peer."""
    return Row(work, "", ours[0], None, statistics.median(ours[1]) * scale, unit, None, None, None, note)


def within(work: str, ours: str, value: float, allowed: float, *, unit: str = "", note: str = "") -> Row:
    """A row of a figure that has to be at most what is allowed; a figure that is no number misses it."""
    ratio = allowed / value if value > 0 else float(value <= allowed)
    return Row(work, "allowed", ours, allowed, value, unit, ratio, None, 1.0, note)


def peak_memory() -> float:
    """Largest resident memory of this process so far, in bytes.

    Linux's ``ru_maxrss`` starts with the memory of the process that started this one; ``VmHWM`` does not.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    peak = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return 1024 * int(peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def machine() -> dict[str, str]:
    """Processor, cores, system and versions."""
    name = cpu_info("model name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"processor": name, "cores": str(cores), "system": platform.platform(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def _cells(row: Row) -> list[str]:
    spread = "" if row.spread is None else f"{_number(row.spread[0])} … {_number(row.spread[1])}"
    goal = "" if row.goal is None else f"≥ {row.goal:g} {row.verdict}".strip()
    peer = f"{row.peer} {_number(row.peer_value)}" if row.peer else "–"
    return [
        row.work,
        peer,
        f"{row.ours} {_number(row.our_value)}",
        row.unit,
        _number(row.ratio),
        spread,
        goal,
        row.note,
    ]


HEADER = ("work", "peer", "ours", "unit", "ratio", "spread", "goal", "note")


def text_table(rows: Iterable[Row]) -> str:
    """Aligned columns, notes on lines of their own."""
    cells = [list(HEADER[:-1]), *(_cells(row)[:-1] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER) - 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    out = lines[:1]
    for row, line in zip(rows, lines[1:], strict=True):
        out += [line] + ([f"    {row.note}"] if row.note else [])
    return "\n".join(out)


def markdown_table(rows: Iterable[Row]) -> str:
    """The same as Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    return "\n".join(lines + ["| " + " | ".join(_cells(row)) + " |" for row in rows]) + "\n"


def as_entry(row: Row) -> dict[str, Any]:
    """A row as files hold it."""
    return {**asdict(row), "verdict": row.verdict}


def from_entry(entry: Mapping[str, Any]) -> Row:
    """Inverse of ``as_entry``."""
    values = {name: value for name, value in entry.items() if name != "verdict"}
    return Row(**{**values, "spread": tuple(values["spread"]) if values["spread"] else None})


def write_json(path: Path, rows: Iterable[Row], **extra: object) -> None:
    """Rows, machine and whatever else explains them."""
    content = {"machine": machine(), **extra, "rows": [as_entry(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> list[Row]:
    """The rows that ``write_json`` wrote."""
    return [from_entry(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["rows"]]
