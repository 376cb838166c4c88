"""The one table: what each start reached on each task."""

from __future__ import annotations

from dataclasses import dataclass

from mst_transfer.report.collect import STARTS, TASKS, Collected, Run

#: Metric in the log, name for readers, factor that makes it points of 100.
METRICS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "det": (
        ("coco/bbox_mAP", "box mAP", 100.0),
        ("coco/bbox_mAP_50", "box AP50", 100.0),
        ("coco/segm_mAP", "mask mAP", 100.0),
        ("coco/segm_mAP_50", "mask AP50", 100.0),
    ),
    "seg": (("mIoU", "mIoU", 1.0), ("mAcc", "mean class accuracy", 1.0), ("aAcc", "pixel accuracy", 1.0)),
}
NOT_MEASURED = "–"


@dataclass(frozen=True)
class TableRow:
    """One metric of one task.

    Attributes:
        task: for readers.
        metric: for readers.
        values: by start; None where it was not measured.
        minutes: of training, by start.
    """

    task: str
    metric: str
    values: dict[str, float | None]
    minutes: dict[str, float | None]

    @property
    def gain(self) -> float | None:
        """MST minus random, in points."""
        mst, random = self.values.get("mst"), self.values.get("random")
        return None if mst is None or random is None else mst - random


def build_table(collected: Collected) -> list[TableRow]:
    """Rows for every metric that at least one run has measured."""
    rows = []
    for task, metrics in METRICS.items():
        runs = {run.start: run for run in collected.runs[task]}
        for name, title, factor in metrics:
            values = {start: _scaled(run, name, factor) for start, run in runs.items()}
            if any(value is not None for value in values.values()):
                minutes = {start: _minutes(run) for start, run in runs.items()}
                rows.append(TableRow(TASKS[task], title, values, minutes))
    return rows


def header_and_cells(rows: list[TableRow]) -> tuple[list[str], list[list[str]]]:
    """The table as text: titles of its columns, and its cells."""
    starts = list(STARTS) + sorted({start for row in rows for start in row.values} - STARTS.keys())
    header = [
        "task",
        "metric",
        *(STARTS.get(start, start) for start in starts),
        "gain of MST over random",
        "minutes",
    ]
    cells = []
    for row in rows:
        minutes = " / ".join(number(row.minutes.get(start)) for start in starts)
        values = [number(row.values.get(start)) for start in starts]
        cells.append([row.task, row.metric, *values, number(row.gain, signed=True), minutes])
    return header, cells


def as_markdown(rows: list[TableRow]) -> str:
    """The table with its columns aligned, in Markdown."""
    header, cells = header_and_cells(rows)
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    text_columns = 2

    def line(values: list[str]) -> str:
        padded = [
            value.ljust(width) if column < text_columns else value.rjust(width)
            for column, (value, width) in enumerate(zip(values, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if i < text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *(line(row) for row in cells)])


def number(value: float | None, signed: bool = False) -> str:
    """One decimal, or a dash for what was not measured."""
    if value is None:
        return NOT_MEASURED
    return f"{value:+.1f}" if signed else f"{value:.1f}"


def _scaled(run: Run, name: str, factor: float) -> float | None:
    value = run.metric(name)
    # COCO's metrics are -1 where the ground truth has nothing to find.
    return None if value is None or value < 0 or value != value else value * factor


def _minutes(run: Run) -> float | None:
    value = run.results.get("minutes")
    return float(value) if isinstance(value, int | float) else None
