"""Labelled images of a task: their files, and their label maps as mmseg reads them or drawn from objects."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.card.measures import digest_of
from mst_transfer.card.pictures import Instances
from mst_transfer.card.tasks import CLASSIFICATION, SEGMENTATION, Task, build_without_pipeline, load_task_config
from mst_transfer.configs.datasets import unwrap
from mst_transfer.datasets.coco_columns import load_json
from mst_transfer.datasets.load_image import LoadSegMap
from mst_transfer.files.checksums import sha256_of
from mst_transfer.probes.labelled_images import open_pair

IGNORED = 255
_MAX_OBJECT_CLASSES = 30  # of dense probes on objects; above, the classes are the file's supercategories
LabelMap = NDArray[np.uint8]


@dataclass(frozen=True)
class Labelled:
    """An image and its labels."""

    path: str
    label_map: Callable[[], LabelMap]  # [H, W], the number of a class or 255
    files: tuple[str, ...] = ()  # further files that the labels come from
    instances: Callable[[], Instances] | None = None  # of a detection
    name: Any = None  # of its class, of class folders; its id in the annotations, of a detection


@dataclass(frozen=True)
class TaskData:
    """What is in a task's training and validation set, in the order of its config's data sets."""

    classes: tuple[str, ...]
    train: list[Labelled]
    val: list[Labelled]
    cfg: Any  # of mmengine; None for a classification
    objects: tuple[str, ...] = ()  # of a detection: its categories by ascending id
    annotations: tuple[str, ...] = ()  # likewise: its files

    @property
    def val_paths(self) -> list[str]:
        """Of the validation images, in their order."""
        return [image.path for image in self.val]

    def val_digest(self) -> str:
        """Stands for the validation images in their order."""
        return digest_of(map(os.path.basename, self.val_paths))

    def digest(self) -> str:
        """SHA-256 over classes, names and sizes of each part's images, and all labels: other data, another protocol."""
        lines = [repr(self.classes), *map(sha256_of, self.annotations)]
        for part, images in (("train", self.train), ("val", self.val)):
            for image in images:
                lines.append(f"{part} {os.path.basename(image.path)} {os.path.getsize(image.path)} {image.name}")
                lines += [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in image.files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def open_task(task: Task) -> TaskData:
    """Lists the images and labels of a task.

    Raises:
        FileNotFoundError, ValueError: its data are missing, or are not what its config says; names all that was found.
    """
    if task.kind == CLASSIFICATION:
        folders = open_pair(Path(task.root) / "train", Path(task.root) / "val", size=1)
        classes = tuple(folders[0].classes)
        train, val = (
            [Labelled(path, _no_map, name=classes[label]) for path, label in zip(one.paths, one.labels, strict=True)]
            for one in folders
        )
        return TaskData(classes, train, val, None)
    from mst_transfer.preflight.check import check_datasets
    from mst_transfer.preflight.data_files import dataset_path

    cfg = load_task_config(task, quiet=False)
    check_datasets(cfg, ("train_dataloader", "val_dataloader"))
    train, val = (build_without_pipeline(cfg, cfg[name].dataset) for name in ("train_dataloader", "val_dataloader"))
    infos = [[dataset.get_data_info(index) for index in range(len(dataset))] for dataset in (train, val)]
    classes = tuple(train.metainfo["classes"])
    if task.kind == SEGMENTATION:
        _check_ignored(cfg)
        images = [[_segmented(info) for info in part] for part in infos]
        return TaskData(classes, images[0], images[1], cfg)
    loaders = cfg.train_dataloader, cfg.val_dataloader
    files = [dataset_path(leaf, leaf["ann_file"]) for loader in loaders for _, leaf in unwrap("", loader.dataset)]
    categories = load_json(files[-1])["categories"]  # the figures are of the validation file's
    names, number = _object_classes(classes, {item["name"]: item.get("supercategory") for item in categories})
    ordered = sorted(categories, key=lambda item: item["id"])
    objects = tuple(item["name"] for item in ordered if item["name"] in classes)
    images = [[_with_objects(info, number) for info in part] for part in infos]
    return TaskData(names, images[0], images[1], cfg, objects, tuple(dict.fromkeys(files)))


def _check_ignored(cfg: Any) -> None:
    for loader in ("train_dataloader", "val_dataloader"):
        for place, leaf in unwrap(f"{loader}.dataset", cfg[loader].dataset):
            if (value := leaf.get("ignore_index", IGNORED)) not in (IGNORED, None):
                raise ValueError(
                    f"{place}.ignore_index = {value}: to a card {IGNORED} alone is no class, it would score {value} as "
                    f"one. Next step: store such pixels as {IGNORED}; where 0 is no class, set reduce_zero_label=True"
                )


def _no_map() -> LabelMap:
    raise TypeError("class folders have no label maps")


def _segmented(info: Mapping[str, Any]) -> Labelled:
    from mmseg.datasets.transforms import LoadAnnotations

    read, path = LoadSegMap(LoadAnnotations()), info["seg_map_path"]
    return Labelled(info["img_path"], lambda: read({**info, "seg_fields": []})["gt_seg_map"], (path,))


def _object_classes(classes: Sequence[str], above: Mapping[str, Any]) -> tuple[tuple[str, ...], list[int]]:
    """Classes of label maps drawn from objects, and for each class of the data its number among them; 0: background.

    ``above``: the supercategories, which take the place of many classes.
    """
    groups = list(dict.fromkeys(above.get(name) for name in classes))
    if len(classes) <= _MAX_OBJECT_CLASSES or None in groups or len(groups) < 2:
        return ("background", *classes), list(range(1, len(classes) + 1))
    return ("background", *map(str, groups)), [1 + groups.index(above[name]) for name in classes]


def _with_objects(info: Mapping[str, Any], number: Sequence[int]) -> Labelled:
    drawn, instances = (lambda: draw_objects(info, number)), (lambda: _instances_of(info)[0])
    return Labelled(info["img_path"], drawn, instances=instances, name=info["img_id"])


def _instances_of(info: Mapping[str, Any]) -> list[Instances]:
    """The objects of mmdet's data info, as mmdet reads them; and those that are ignored, such as crowds.

    The mask of one without an outline is its box.
    """
    from mmdet.datasets.transforms import LoadAnnotations

    size = info["height"], info["width"]
    outlined = [{"mask": [_corners(*one["bbox"])], **one} for one in info["instances"]]
    read = LoadAnnotations(with_mask=True, box_type=None)({**info, "instances": outlined, "ori_shape": size})
    chosen = [read["gt_ignore_flags"] == ignored for ignored in (False, True)]
    parts = read["gt_bboxes"], read["gt_masks"].masks > 0, read["gt_bboxes_labels"]
    return [Instances(*(part[which] for part in parts)) for which in chosen]


def _corners(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def draw_objects(info: Mapping[str, Any], number: Sequence[int]) -> LabelMap:
    """A label map [H, W] of the objects of mmdet's data info: small ones over large ones, crowds ignored, else 0."""
    canvas, (objects, ignored) = np.zeros((info["height"], info["width"]), np.uint8), _instances_of(info)
    canvas[ignored.masks.any(axis=0)] = IGNORED
    for index in np.argsort(-objects.masks.sum(axis=(1, 2)), kind="stable"):
        canvas[objects.masks[index]] = number[objects.labels[index]]
    return canvas
