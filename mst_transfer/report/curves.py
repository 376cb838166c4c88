"""Curves over the steps of the runs, drawn by matplotlib without a display."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mst_transfer.report.collect import TASKS, Run
from mst_transfer.report.scalars import Scalars
from mst_transfer.report.table import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """One pair of axes: its title, the unit of its vertical axis, and the steps and values of each curve by name."""

    title: str
    unit: str
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]


ENTROPIES = "Cross-entropy between teacher and student"
# Title, unit, and what is drawn: names in the log, and for readers.
PRETRAIN = (
    (ENTROPIES, "nats", {"loss_dino": "cross-entropy", "teacher_entropy": "teacher entropy"}),
    ("Restoring loss", "mean absolute error", {"loss_restoring": "restoring loss"}),
    ("Total loss", "loss", {"loss": "loss"}),
    ("Learning rate", "learning rate", {"lr": "learning rate"}),
    ("Teacher momentum", "momentum", {"teacher_momentum": "teacher momentum"}),
    ("Masked patches", "share of patches", {"mask_ratio": "masked"}),
    ("Speed", "images a second", {"images_per_s": "speed"}),
    ("Waiting for data", "share of the time", {"data_share": "waiting"}),
    ("k-NN accuracy", "per cent", {"val/knn_top1": "top-1"}),
)


def pretrain_panels(scalars: Scalars, out_dim: int | None) -> list[Panel]:
    """What a pre-training logged.

    Args:
        scalars: the log.
        out_dim: outputs of the projection head; its logarithm bounds the teacher's entropy. None if unknown.
    """
    panels = []
    for title, unit, names in PRETRAIN:
        curves = {label: scalars.series(name) for name, label in names.items() if scalars.series(name)[0]}
        if curves and out_dim and title == ENTROPIES:
            steps, _ = next(iter(curves.values()))
            curves[f"ln {out_dim:,}"] = ([steps[0], steps[-1]], [math.log(out_dim)] * 2)
        panels += [Panel(title, unit, curves)] if curves else []
    return panels


def finetune_panels(task: str, runs: Sequence[Run]) -> list[Panel]:
    """Training loss and main validation metrics of all starts of "det" or "seg"."""
    wanted = [("loss", f"Training loss, {TASKS[task]}", "loss", 1.0)]
    for name, title, factor in METRICS[task]:
        if "50" not in name and "Acc" not in name:
            wanted.append((name, f"{title} on the validation images", "points", factor))
    panels = []
    for name, title, unit, factor in wanted:
        logged = {run.label: run.scalars.series(name) for run in runs}
        curves = {label: (steps, [factor * v for v in values]) for label, (steps, values) in logged.items() if steps}
        panels += [Panel(title, unit, curves)] if curves else []
    return panels


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the report's style. Sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Write a PNG of panels, three a row."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.6 * columns, 3.1 * rows)
    for index, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, index)
        for label, (steps, values) in panel.curves.items():
            axes.plot(steps, values, label=label, marker="o" if len(steps) < 20 else "", markersize=3)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel(panel.unit, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e2e8f0")
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)
