"""The one table: what each start reached on each task."""

from __future__ import annotations

from typing import Any

from mst_transfer.report.collect import STARTS, TASKS, Collected

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


def build_table(collected: Collected) -> list[list[str]]:
    """Rows of text: a header, then every metric that at least one run has measured; the gain stands last but one."""
    starts = list(dict.fromkeys([*STARTS, *(run.start for run in collected.runs if run.start)]))
    table = [["task", "metric", *(STARTS.get(start, start) for start in starts), "gain of MST over random", "minutes"]]
    for task, metrics in METRICS.items():
        results = {run.start: run.results for run in collected.of(task)}
        minutes = " / ".join(_text(_number(results.get(start, {}).get("minutes"))) for start in starts)
        for name, title, factor in metrics:
            values = {start: _number(one.get("metrics", {}).get(name), factor) for start, one in results.items()}
            if any(value is not None for value in values.values()):
                mst, random = values.get("mst"), values.get("random")
                gain = NOT_MEASURED if mst is None or random is None else f"{mst - random:+.1f}"
                table.append([TASKS[task], title, *(_text(values.get(start)) for start in starts), gain, minutes])
    return table


def as_markdown(table: list[list[str]]) -> str:
    """The table with its columns aligned, in Markdown."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: Any, factor: float = 1.0) -> float | None:
    """What was measured; COCO's metrics are -1 where the ground truth has nothing to find."""
    return value * factor if isinstance(value, int | float) and value >= 0 else None


def _text(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.1f}"
