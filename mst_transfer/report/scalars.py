"""mmengine's log of a run: ``<work dir>/<time>/vis_data/scalars.json``, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Scalars:
    """A run's log, in the order of its steps.

    Attributes:
        train: rows with ``step`` and the logged values.
        val: rows with ``step`` (of training done) and the metrics.
    """

    train: tuple[Row, ...] = ()
    val: tuple[Row, ...] = ()

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged number, from training or validation; empty if it was not logged."""
        rows = [row for row in (*self.train, *self.val) if isinstance(row.get(name), int | float)]
        return [row["step"] for row in rows], [float(row[name]) for row in rows]

    def names(self) -> set[str]:
        """Every number that was logged."""
        return {name for row in (*self.train, *self.val) for name in row}


def read_scalars(folder: Path) -> Scalars:
    """Read every ``*/vis_data/scalars.json`` of a run, also of one that was resumed or started again.

    mmengine begins a new file, in a folder named after the time, whenever a run starts. Where files overlap
    the newer one holds. Validation rows count steps, as our runs log them; where they count epochs, as mmengine does
    unless told otherwise, they get the step of the training row before them.
    """
    train: list[Row] = []
    val: list[Row] = []
    for path in sorted(folder.glob("*/vis_data/scalars.json")):
        rows = list(_json_lines(path))
        steps = [row["step"] for row in rows if _is_train(row)][:1]
        train = [row for row in train if not steps or row["step"] < steps[0]]
        newer: list[Row] = []
        for row in rows:
            if _is_train(row):
                train.append(row)
            else:
                newer.append({**row, "step": max(row.get("step", 0), train[-1]["step"] if train else 0)})
        steps += [row["step"] for row in newer]
        val = [row for row in val if not steps or row["step"] < min(steps)] + newer
    return Scalars(tuple(train), tuple(val))


def _is_train(row: Row) -> bool:
    return "step" in row and ("loss" in row or "lr" in row)


def _json_lines(path: Path) -> Iterator[Row]:
    """Rows of a log; a last line that a killed run left unfinished is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row
