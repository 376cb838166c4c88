"""A pre-training's curves, from mmengine's log ``<work dir>/<time>/vis_data/scalars.json``, and its pictures."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from mst_transfer.card.plots import Line

ENTROPIES = "Cross-entropy between teacher and student"
MAX_POINTS = 400  # of a curve
# Title, unit, and what is drawn: names in the log, and for readers.
PANELS = (
    (ENTROPIES, "nats", {"loss_dino": "cross-entropy", "teacher_entropy": "teacher entropy"}),
    ("Restoring loss", "mean absolute error", {"loss_restoring": "restoring loss"}),
    ("Total loss", "loss", {"loss": "loss"}),
    ("k-NN accuracy", "per cent", {"val/knn_top1": "top-1"}),
    ("Learning rate", "learning rate", {"lr": "learning rate"}),
    ("Speed", "images a second", {"images_per_s": "speed"}),
)


def read_pretraining(folder: Path) -> dict[str, Any]:
    """Reads ``name``, ``panels`` and ``pictures`` (``path``, ``title``, ``caption``) of a work directory.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; name the work directory of a pre-training")
    config, index = (folder / name for name in ("run_config.json", "pictures/index.json"))
    head = json.loads(config.read_text(encoding="utf-8"))["model"]["head"] if config.is_file() else {}
    entries = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else []
    pictures = [dict(entry, path=index.parent / Path(entry["file"]).name) for entry in entries]
    pictures = [picture for picture in pictures if picture["path"].is_file()]
    return dict(name=folder, panels=panels(read_scalars(folder), head.get("out_dim")), pictures=pictures)


def read_scalars(folder: Path) -> list[dict[str, Any]]:
    """Reads the rows that a run logged, each with its ``step``, also of a run that was resumed or started again.

    mmengine begins a new file, in a folder named after the time, whenever a run starts. From its first step on it
    replaces the files before it.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*/vis_data/scalars.json")):
        newer = []
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # a killed run leaves a line unfinished
                row = json.loads(line)
                newer += [row] if isinstance(row, dict) and isinstance(row.get("step"), int) else []
        first = min((row["step"] for row in newer), default=None)
        found = [row for row in found if first is None or row["step"] < first] + newer
    return found


def panels(rows: list[dict[str, Any]], out_dim: int | None = None) -> list[tuple[str, str, list[Line]]]:
    """Title, unit and curves of what was logged; ln ``out_dim`` of the projection head bounds the teacher's entropy."""
    drawn = []
    for title, unit, names in PANELS:
        lines: list[Line] = []
        for name, label in names.items():
            points = [(row["step"], float(row[name])) for row in rows if isinstance(row.get(name), int | float)]
            if points:
                steps, values = zip(*points[:: math.ceil(len(points) / MAX_POINTS)], strict=True)
                lines.append(Line(label, steps, values, style=len(lines)))
        if lines and out_dim and title == ENTROPIES:
            ends = (lines[0].x[0], lines[0].x[-1])
            lines.append(Line(f"ln {out_dim:,}", ends, [math.log(out_dim)] * 2, style=len(lines)))
        drawn += [(title, unit, lines)] if lines else []
    return drawn
