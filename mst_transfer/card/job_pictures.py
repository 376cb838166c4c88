"""Pictures that a job leaves for the page: answers beside the truth, attention and principal components."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.pictures import PHOTO, TRUTH, Instances, colours_of, draw_answer, save_pictures
from mst_transfer.card.task_data import Labelled, TaskData
from mst_transfer.engine.predict import TrainedHead
from mst_transfer.files.image_folder import read_image
from mst_transfer.probes.backbones import FrozenBackbone
from mst_transfer.probes.maps import photo_maps

NUM_PHOTOS = 4
MIN_SCORE = 0.3  # of objects that are drawn
COMPONENTS = "First three principal components of the patch tokens over these photos, as red, green, blue."


def shown_images(data: TaskData) -> list[int]:
    """Numbers of the validation images that pictures show: evenly spaced, not chosen by their looks."""
    number = min(NUM_PHOTOS, len(data.val))
    return [(2 * k + 1) * len(data.val) // (2 * number) for k in range(number)]


def _short_names(paths: Sequence[str]) -> list[str]:
    """The ends of paths, as short as they tell all apart."""
    for length in range(1, 1 + max(len(Path(path).parts) for path in paths)):
        names = ["/".join(Path(path).parts[-length:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def save_maps(folder: Path, task: str, data: TaskData, checkpoint: Checkpoint, frozen: FrozenBackbone) -> None:
    """Attention and principal components of a checkpoint on some validation images."""
    chosen = [data.val[index].path for index in shown_images(data)]
    photos = [read_image(path, exif_orientation=True) for path in chosen]
    for name, maps in photo_maps(frozen, photos).items():
        rows = zip(_short_names(chosen), photos, maps, strict=True)
        cells = {title: {PHOTO: photo, checkpoint.name: shown} for title, photo, shown in rows}
        caption = COMPONENTS if name == "components" else _words_of_attention(checkpoint.name, frozen.model)
        save_pictures(folder / name, "maps", f"{task}: {name}", cells, caption)


def _words_of_attention(name: str, model: nn.Module) -> str:
    """A caption; it names a checkpoint that has no class token."""
    if isinstance(model, SwinTransformer):
        return f"{name}: attention of the average-pooled feature over the last stage's tokens, mean of the heads."
    if model.cls_token is None:
        return f"{name}: attention that all tokens pay to each patch in the last block, mean of the heads."
    return "Attention of the class token in the last block, mean of the heads."


def save_head(folder: Path, title: str, data: TaskData, checkpoint: Checkpoint, run: Path) -> None:
    """What a trained head finds in some validation images, beside the truth."""
    head = TrainedHead(run)
    shown = [data.val[index] for index in shown_images(data)]
    answers = {image: _answer_of(head(Path(image.path))) for image in shown}
    caption = f"Objects of a score of {MIN_SCORE:g} and more." if head.detects else ""
    save_answers(folder, title, checkpoint.name, head.classes, answers, caption)


def _answer_of(sample: Any) -> Any:
    """Instances, or the label map, of a data sample of mmdet or mmseg."""
    if "pred_sem_seg" in sample:
        return sample.pred_sem_seg.data[0].cpu().numpy()
    found = sample.pred_instances
    found = found[found.scores >= MIN_SCORE].cpu().numpy()
    masks = found.masks > 0 if "masks" in found else np.zeros((len(found), *sample.ori_shape), bool)
    return Instances(found.bboxes, masks, found.labels, found.scores)


def save_answers(
    folder: Path, title: str, name: str, classes: Sequence[str], answers: Mapping[Labelled, Any], caption: str
) -> None:
    """A checkpoint's column of a grid: instances or label maps that were found in some images, beside the truth."""
    cells, drawn = {}, list[Any]()
    for short, (image, found) in zip(_short_names([image.path for image in answers]), answers.items(), strict=True):
        truth = image.instances() if image.instances and isinstance(found, Instances) else image.label_map()
        photo, columns = read_image(image.path, exif_orientation=True), {TRUTH: truth, name: found}
        pictures = {column: draw_answer(photo, answer, classes) for column, answer in columns.items()}
        cells[short] = {PHOTO: photo, **pictures}
        drawn += columns.values()
    save_pictures(folder, "predictions", title, cells, caption, colours_of(drawn, classes))
