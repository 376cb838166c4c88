"""mmengine's log of a run: ``<work dir>/<time>/vis_data/scalars.json``, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


class Scalars(NamedTuple):
    """A run's log: what was logged at a step, in training or validation, is a row with that ``step``."""

    rows: tuple[Row, ...] = ()

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged number; empty if it was not logged."""
        rows = [row for row in self.rows if isinstance(row.get(name), int | float)]
        return [row["step"] for row in rows], [float(row[name]) for row in rows]


def read_scalars(folder: Path) -> Scalars:
    """Read every ``*/vis_data/scalars.json`` of a run, also of one that was resumed or started again.

    mmengine begins a new file, in a folder named after the time, whenever a run starts. From its first step on it
    replaces the files before it.
    """
    found: list[Row] = []
    for path in sorted(folder.glob("*/vis_data/scalars.json")):
        newer = list(_rows(path))
        first = min((row["step"] for row in newer), default=None)
        found = [row for row in found if first is None or row["step"] < first] + newer
    return Scalars(tuple(found))


def _rows(path: Path) -> Iterator[Row]:
    """Rows of a log; a last line that a killed run left unfinished is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
