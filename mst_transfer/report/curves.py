"""Curves over the steps of the runs, drawn by matplotlib without a display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mst_transfer.report.collect import TASKS, Run
from mst_transfer.report.scalars import Scalars
from mst_transfer.report.table import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: dict[str, str] = {"mst": "#2563eb", "random": "#d97706"}
_MORE_COLOURS = ("#059669", "#9333ea", "#dc2626", "#0891b2")


class Line(NamedTuple):
    """One curve of a panel: its name in the log, and for readers."""

    name: str
    title: str
    colour: str


class Panel(NamedTuple):
    """One pair of axes of the pre-training figure.

    Attributes:
        title: what is shown.
        unit: of the vertical axis.
        lines: curves; those that were not logged are left out.
        right: a curve on a second vertical axis.
        from_zero: the vertical axes begin at 0.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    right: Line | None = None
    from_zero: bool = False


_ENTROPIES = (Line("loss_dino", "cross-entropy", "#2563eb"), Line("teacher_entropy", "teacher entropy", "#d97706"))
_RATE, _MOMENTUM = Line("lr", "learning rate", "#9333ea"), Line("teacher_momentum", "teacher momentum", "#0891b2")
_SPEED = Line("images_per_s", "images a second", "#2563eb")
_WAITING = Line("data_share", "share of time waiting for data", "#dc2626")
PANELS: tuple[Panel, ...] = (
    Panel("Cross-entropy between teacher and student", "nats", _ENTROPIES),
    Panel("Restoring loss", "mean absolute error", (Line("loss_restoring", "restoring loss", "#059669"),)),
    Panel("Total loss", "loss", (Line("loss", "loss", "#475569"),)),
    Panel("Learning rate and teacher momentum", "learning rate", (_RATE,), _MOMENTUM),
    Panel("Speed", "images a second", (_SPEED,), _WAITING, from_zero=True),
    Panel("Masked patches", "share of patches", (Line("mask_ratio", "masked", "#475569"),), from_zero=True),
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the report's style. Sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")


def start_colour(start: str, starts: Sequence[str]) -> str:
    """The colour of a start, the same in every figure."""
    others = [name for name in starts if name not in COLOURS]
    return COLOURS[start] if start in COLOURS else _MORE_COLOURS[others.index(start) % len(_MORE_COLOURS)]


def draw_pretrain_curves(scalars: Scalars, out_dim: int | None, path: Path) -> bool:
    """Draw the pre-training log.

    Args:
        scalars: the log.
        out_dim: outputs of the projection head; its logarithm bounds the teacher's entropy. None if unknown.
        path: PNG to write.

    Returns:
        False, and no file, if nothing was logged that could be drawn.
    """
    logged = scalars.names()
    panels = [panel for panel in PANELS if any(line.name in logged for line in panel.lines)]
    knn = sorted(name for name in logged if "knn" in name.lower() and f"val/{name}" not in logged)
    if knn:
        panels.append(Panel("k-NN accuracy", "per cent", tuple(Line(n, n, "#059669") for n in knn)))
    if not panels:
        return False
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.6 * columns, 3.1 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, scalars)
        if out_dim and panel.lines == _ENTROPIES:
            axes.axhline(math.log(out_dim), color="#94a3b8", linestyle="--", linewidth=1, label=f"ln {out_dim:,}")
        _dress(axes, panel.title, panel.unit)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path)
    return True


def draw_finetune_curves(task: str, runs: Sequence[Run], path: Path) -> bool:
    """Draw training loss and validation metrics of all starts on the same axes.

    Args:
        task: "det" or "seg".
        runs: runs of that task.
        path: PNG to write.

    Returns:
        False, and no file, if nothing was logged that could be drawn.
    """
    metrics = [m for m in METRICS[task] if "50" not in m[0] and "Acc" not in m[0]]
    panels = [("loss", f"Training loss, {TASKS[task]}", "loss", 1.0)]
    panels += [(name, f"{title} on the validation images", "points", factor) for name, title, factor in metrics]
    panels = [panel for panel in panels if any(run.scalars.series(panel[0])[0] for run in runs)]
    if not panels:
        return False
    figure = new_figure(4.6 * len(panels), 3.3)
    grid = figure.subplots(1, len(panels), squeeze=False)
    starts = [run.start for run in runs]
    for axes, (name, title, unit, factor) in zip(grid.flat, panels, strict=True):
        for run in runs:
            steps, values = run.scalars.series(name)
            marker = "" if name == "loss" else "o"
            scaled, colour = [value * factor for value in values], start_colour(run.start, starts)
            axes.plot(steps, scaled, color=colour, label=run.label, marker=marker, markersize=4)
        if name != "loss":
            axes.set_ylim(bottom=0)
        _dress(axes, title, unit)
        axes.set_xlim(left=0)
    figure.savefig(path)
    return True


def _draw_panel(axes: Axes, panel: Panel, scalars: Scalars) -> None:
    for line in panel.lines:
        steps, values = scalars.series(line.name)
        if steps:
            axes.plot(steps, values, color=line.colour, label=line.title)
    steps, values = scalars.series(panel.right.name) if panel.right else ([], [])
    if panel.right and steps:
        second = axes.twinx()
        second.plot(steps, values, color=panel.right.colour)
        second.set_ylabel(panel.right.title, color=panel.right.colour, fontsize=8)
        second.tick_params(labelsize=8, colors=panel.right.colour)
        second.spines["top"].set_visible(False)
        if panel.from_zero:
            second.set_ylim(0, max(1.1 * max(values), 0.2))
        axes.plot([], [], color=panel.right.colour, label=f"{panel.right.title} (right)")
    if panel.from_zero:
        axes.set_ylim(bottom=0)


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
