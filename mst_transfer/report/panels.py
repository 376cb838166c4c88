"""Pictures of predictions: one row an image, the truth and each start side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mst_transfer.report.curves import new_figure
from mst_transfer.report.predictions import IGNORED, Colour, Instance, Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_SIDE = 360  # images are enlarged to about this, so that outlines and words are sharp


def draw_predictions(task: str, by_start: dict[str, Predictions], path: Path) -> None:
    """Draw one figure: photo, truth, and what each start found.

    Args:
        task: "det" or "seg".
        by_start: predictions by the start's name for readers; all on the same images.
        path: PNG to write.
    """
    first = next(iter(by_start.values()))
    columns = ["image", "truth", *by_start]
    height, width = first.items[0].image.shape[:2]
    cell = 2.7
    figure = new_figure(cell * len(columns), (cell * height / width + 0.12) * len(first.items) + 0.9)
    grid = figure.subplots(len(first.items), len(columns), squeeze=False)
    for row, item in enumerate(first.items):
        _show(grid[row][0], item.image, item.name)
        answers = {"truth": item.truth, **{name: runs.items[row].found for name, runs in by_start.items()}}
        for axes, (name, answer) in zip(grid[row][1:], answers.items(), strict=True):
            if task == "det":
                picture = paint_instances(item.image, answer, first.classes, first.palette)
                note = "" if name == "truth" else f"{len(answer)} found"
            else:
                picture = paint_label_map(item.image, answer, first.palette)
                note = "" if name == "truth" else f"{agreement(answer, item.truth):.0%} of pixels right"
            _show(axes, picture, note)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=12, fontweight="bold")
    _class_key(figure, first, task, by_start)
    figure.savefig(path)


def paint_instances(
    image: NDArray[np.uint8], instances: Sequence[Instance], classes: Sequence[str], palette: Sequence[Colour]
) -> NDArray[np.uint8]:
    """Enlarged image with each instance's mask tinted, its outline, box, class and score."""
    canvas, scale = _enlarged(image)
    for instance in instances:
        colour = np.array(palette[instance.label], dtype=np.float32)
        mask = cv2.resize(instance.mask.astype(np.uint8), canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(
            bool
        )
        canvas[mask] = (0.5 * canvas[mask] + 0.5 * colour).astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, _as_colour(colour * 0.6), 1, cv2.LINE_AA)
    for instance in instances:  # boxes and words above every mask
        _box_and_words(canvas, instance, scale, classes, palette)
    return canvas


def paint_label_map(
    image: NDArray[np.uint8], labels: NDArray[np.int64], palette: Sequence[Colour]
) -> NDArray[np.uint8]:
    """Enlarged image under the colours of its classes; ignored pixels stay as they are."""
    canvas, _ = _enlarged(image)
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(palette)] = palette
    enlarged = cv2.resize(labels.astype(np.uint8), canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    shown = enlarged < len(palette)
    canvas[shown] = (0.3 * canvas[shown] + 0.7 * colours[enlarged[shown]]).astype(np.uint8)
    return canvas


def agreement(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of the pixels with a label in the truth on which both agree."""
    labelled = truth != IGNORED
    return float((found == truth)[labelled].mean()) if labelled.any() else float("nan")


def _enlarged(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    scale = max(1, round(_SHOWN_SIDE / max(image.shape[:2])))
    size = (image.shape[1] * scale, image.shape[0] * scale)
    enlarged = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image.copy()
    return np.asarray(enlarged, dtype=np.uint8), float(scale)


def _box_and_words(
    canvas: NDArray[np.uint8],
    instance: Instance,
    scale: float,
    classes: Sequence[str],
    palette: Sequence[Colour],
) -> None:
    colour = palette[instance.label]
    x0, y0, x1, y1 = (round(value * scale) for value in instance.box)
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), colour, 2)
    words = classes[instance.label]
    if instance.score is not None:
        words += f" {100 * instance.score:.0f}"
    (width, height), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    left = int(np.clip(x0, 0, max(canvas.shape[1] - width - 4, 0)))
    bottom = int(np.clip(y0, height + 5, canvas.shape[0]))
    cv2.rectangle(canvas, (left, bottom - height - 5), (left + width + 4, bottom), colour, -1)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    cv2.putText(canvas, words, (left + 2, bottom - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)


def _as_colour(values: NDArray[np.float32]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _show(axes: Axes, image: NDArray[np.uint8], note: str) -> None:
    axes.imshow(image, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(note, fontsize=7, color="#64748b", labelpad=2)


def _class_key(figure: Figure, first: Predictions, task: str, by_start: dict[str, Predictions]) -> None:
    """A patch of colour for every class that occurs in the figure."""
    from matplotlib.patches import Patch

    present: set[int] = set()
    for predictions in by_start.values():
        for item in predictions.items:
            for answer in (item.truth, item.found):
                present |= _labels(task, answer)
    handles: list[Any] = [
        Patch(color=np.array(first.palette[label]) / 255, label=first.classes[label])
        for label in sorted(present)
        if label < len(first.classes)
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 9), fontsize=9, frameon=False
        )


def _labels(task: str, answer: Any) -> set[int]:
    return {instance.label for instance in answer} if task == "det" else set(np.unique(answer).tolist())
