"""Pictures that a job leaves for the page: predictions beside the truth, attention and principal components."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.pictures import PHOTO, TRUTH, colours_of, draw_answer, save_pictures
from mst_transfer.card.predictions import Prediction, answer_of, spread
from mst_transfer.card.task_data import Labelled, TaskData
from mst_transfer.engine.predict import TrainedHead
from mst_transfer.files.image_folder import read_image
from mst_transfer.probes.backbones import FrozenBackbone
from mst_transfer.probes.maps import photo_maps

NUM_PHOTOS = 4
MIN_SCORE = 0.3  # of objects that are drawn


def shown_images(data: TaskData) -> list[int]:
    """Numbers of the validation images that pictures show: evenly spaced, not chosen by their looks."""
    return spread(len(data.val), NUM_PHOTOS)


def save_maps(folder: Path, task: str, data: TaskData, checkpoint: Checkpoint, frozen: FrozenBackbone) -> None:
    """Attention and principal components of a checkpoint on some validation images."""
    chosen = [data.val[index].path for index in shown_images(data)]
    photos = [read_image(path) for path in chosen]
    captions = {
        "attention": "Attention of the class token in the last block, mean of the heads.",
        "components": "First three principal components of the patch tokens over these photos, as red, green, blue.",
    }
    for name, maps in photo_maps(frozen, photos).items():
        rows = zip(chosen, photos, maps, strict=True)
        cells = {os.path.basename(path): {PHOTO: photo, checkpoint.name: shown} for path, photo, shown in rows}
        save_pictures(folder / name, "maps", f"{task}: {name}", cells, captions[name])


def save_label_maps(
    folder: Path, title: str, data: TaskData, checkpoint: Checkpoint, maps: Mapping[int, NDArray], caption: str
) -> None:
    """Label maps that a probe predicted, beside the truth."""
    shown = {data.val[index]: predicted for index, predicted in maps.items()}
    found = [Prediction(_name(image), read_image(image.path), image.label_map(), shown[image]) for image in shown]
    save_predictions(folder, title, checkpoint, data.classes, found, caption)


def save_head(folder: Path, title: str, data: TaskData, checkpoint: Checkpoint, run: Path) -> None:
    """What a trained head finds in some validation images, beside the truth."""
    head, found = TrainedHead(run), []
    for image in (data.val[index] for index in shown_images(data)):
        truth = image.instances() if image.instances else image.label_map()
        answer = answer_of(head(Path(image.path)), MIN_SCORE)
        found.append(Prediction(_name(image), read_image(image.path), truth, answer))
    caption = f"Objects of a score of {MIN_SCORE:g} and more." if head.detects else ""
    save_predictions(folder, title, checkpoint, head.classes, found, caption)


def _name(image: Labelled) -> str:
    return os.path.basename(image.path)


def save_predictions(
    folder: Path, title: str, checkpoint: Checkpoint, classes: Sequence[str], found: Sequence[Prediction], caption: str
) -> None:
    """A checkpoint's column of a grid of predictions."""
    cells: dict[str, dict[str, Any]] = {}
    for one in found:
        drawn = {TRUTH: one.truth, checkpoint.name: one.found}
        answers = {name: draw_answer(one.image, answer, classes) for name, answer in drawn.items()}
        cells[one.name] = {PHOTO: one.image, **answers}
    legend = colours_of([answer for one in found for answer in (one.truth, one.found)], classes)
    save_pictures(folder, "predictions", title, cells, caption, legend)
