"""Pictures of predictions: one row an image, the truth and each start side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mst_transfer.report.curves import new_figure
from mst_transfer.report.predictions import Instances, Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_predictions(classes: Sequence[str], by_start: dict[str, list[Prediction]], path: Path) -> None:
    """Draw one figure: photo, truth, and what each start found.

    Args:
        classes: their names.
        by_start: predictions by the start's name for readers; all on the same images.
        path: PNG to write.
    """
    first = next(iter(by_start.values()))
    height, width = first[0].image.shape[:2]
    columns = 2 + len(by_start)
    figure = new_figure(2.7 * columns, 2.7 * height / width * len(first) + 0.9)
    for row, item in enumerate(first):
        answers = {"truth": item.truth, **{name: items[row].found for name, items in by_start.items()}}
        for column, (name, answer) in enumerate({item.name: None, **answers}.items(), 1):
            axes = figure.add_subplot(len(first), columns, row * columns + column)
            axes.imshow(item.image)
            axes.set_axis_off()
            if row == 0 or column == 1:
                axes.set_title(name, fontsize=9)
            if answer is not None:
                paint(axes, answer, classes)
    figure.savefig(path)


def paint(axes: Axes, answer: Any, classes: Sequence[str]) -> None:
    """Lays instances, or the classes of a label map, over the image that the axes show, in colours and words.

    Pixels of no class stay as they are. A class's name stands at an instance's box, or in the middle of its pixels.
    """
    from matplotlib.patches import Rectangle

    shown: list[tuple[Any, int, str, Any]] = []  # mask, class, words, and where they stand
    if isinstance(answer, Instances):
        for index, (box, label) in enumerate(zip(answer.boxes, answer.labels.tolist(), strict=True)):
            score = "" if answer.scores is None else f" {100 * answer.scores[index]:.0f}"
            shown.append((answer.masks[index], label, classes[label] + score, box[:2]))
            frame = Rectangle(box[:2], *(box[2:] - box[:2]), fill=False, edgecolor=colour_of(label, classes))
            axes.add_patch(frame)
    else:
        for label in np.unique(answer[answer < len(classes)]).tolist():
            middle = np.median(np.nonzero(answer == label)[::-1], axis=1)
            shown.append((answer == label, label, classes[label], middle))
    for mask, label, words, (x, y) in shown:
        colour = colour_of(label, classes)
        axes.imshow(np.where(mask[..., None], (*colour, 0.6), 0.0))
        axes.text(x, y, words, fontsize=6, bbox=dict(facecolor="white", edgecolor=colour, pad=1))


def colour_of(label: int, classes: Sequence[str]) -> tuple[float, float, float]:
    """RGB of a class, from 0 to 1, the same in every picture."""
    from matplotlib import colormaps

    return colormaps["turbo"](label / max(len(classes) - 1, 1))[:3]
