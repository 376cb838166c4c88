"""Labelled images of a task: their files, and their label maps as mmseg reads them or drawn from objects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.card.measures import digest_of
from mst_transfer.card.predictions import Instances
from mst_transfer.card.tasks import CLASSIFICATION, SEGMENTATION, Task, build_without_pipeline, load_task_config
from mst_transfer.configs.datasets import unwrap
from mst_transfer.datasets.coco_columns import load_json
from mst_transfer.files.label_maps import read_label_map

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


@dataclass(frozen=True)
class TaskData:
    """What is in a task's training and validation set, in the order of its config's data sets."""

    classes: tuple[str, ...]
    train: list[Labelled]
    val: list[Labelled]
    cfg: Any  # of mmengine; None for a classification
    objects: tuple[str, ...] = ()  # of a detection: its categories by ascending id

    def val_digest(self) -> str:
        """Stands for the validation images in their order."""
        return digest_of(os.path.basename(image.path) for image in self.val)

    def digest(self) -> str:
        """SHA-256 over classes, and names and sizes of all files: other data, another protocol."""
        lines = [repr(self.classes)]
        for image in (*self.train, *self.val):
            lines += [f"{os.path.basename(path)} {os.path.getsize(path)}" for path in (image.path, *image.files)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def open_task(task: Task) -> TaskData:
    """Lists the images and labels of a task.

    Raises:
        FileNotFoundError, ValueError: its data are missing, or are not what its config says; names all that was found.
    """
    if task.kind == CLASSIFICATION:
        return _open_folders(task)
    from mst_transfer.preflight.check import check_datasets

    cfg = load_task_config(task)
    check_datasets(cfg, ("train_dataloader", "val_dataloader"))
    train, val = (build_without_pipeline(cfg, cfg[name].dataset) for name in ("train_dataloader", "val_dataloader"))
    infos = [[dataset.get_data_info(index) for index in range(len(dataset))] for dataset in (train, val)]
    classes = tuple(train.metainfo["classes"])
    if task.kind == SEGMENTATION:
        images = [[_segmented(info) for info in part] for part in infos]
        return TaskData(classes, images[0], images[1], cfg)
    categories = load_json(_annotation_file(cfg))["categories"]
    names, number = _object_classes(classes, {item["name"]: item.get("supercategory") for item in categories})
    images = [[_with_objects(info, number) for info in part] for part in infos]
    objects = tuple(item["name"] for item in sorted(categories, key=lambda item: item["id"]))
    return TaskData(names, images[0], images[1], cfg, objects)


def _open_folders(task: Task) -> TaskData:
    from mst_transfer.probes.labelled_images import open_pair

    train, val = open_pair(Path(task.root) / "train", Path(task.root) / "val", size=1)
    parts = [[Labelled(path, _no_map) for path in part.paths] for part in (train, val)]
    return TaskData(tuple(train.classes), parts[0], parts[1], None)


def _no_map() -> LabelMap:
    raise TypeError("class folders have no label maps")


def _segmented(info: Mapping[str, Any]) -> Labelled:
    path, mapping = info["seg_map_path"], info.get("label_map")
    table = np.arange(256, dtype=np.uint8)
    if info.get("reduce_zero_label"):
        table = np.where(table == 0, IGNORED, table - 1).astype(np.uint8)
        table[IGNORED] = IGNORED
    mapped = np.arange(256, dtype=np.uint8)
    for before, after in (mapping or {}).items():
        mapped[before] = after if 0 <= after < IGNORED else IGNORED
    table = mapped[table]
    return Labelled(info["img_path"], lambda: table[read_label_map(path)], (path,))


def _annotation_file(cfg: Any) -> str:
    from mst_transfer.preflight.data_files import dataset_path

    leaf = next(leaf for _, leaf in unwrap("", cfg.train_dataloader.dataset))
    return dataset_path(leaf, leaf["ann_file"])


def _object_classes(classes: Sequence[str], above: Mapping[str, Any]) -> tuple[tuple[str, ...], list[int]]:
    """Classes of label maps drawn from objects, and for each class of the data its number among them; 0: background.

    ``above``: the supercategories, which take the place of many classes.
    """
    groups = list(dict.fromkeys(above.get(name) for name in classes))
    if len(classes) <= _MAX_OBJECT_CLASSES or None in groups or len(groups) < 2:
        return ("background", *classes), list(range(1, len(classes) + 1))
    return ("background", *map(str, groups)), [1 + groups.index(above[name]) for name in classes]


def _with_objects(info: Mapping[str, Any], number: Sequence[int]) -> Labelled:
    return Labelled(info["img_path"], lambda: draw_objects(info, number), instances=lambda: instances_of(info))


def instances_of(info: Mapping[str, Any], ignored: bool = False) -> Instances:
    """The objects of mmdet's data info; or those that are ignored, such as crowds."""
    from pycocotools import mask as coco_mask

    size = info["height"], info["width"]
    chosen = [one for one in info["instances"] if bool(one["ignore_flag"]) == ignored]
    masks = np.zeros((len(chosen), *size), dtype=bool)
    for place, one in zip(masks, chosen, strict=True):
        encoded = one["mask"]
        if not isinstance(encoded, Mapping) or isinstance(encoded["counts"], list):
            encoded = coco_mask.frPyObjects(encoded, *size)
            encoded = coco_mask.merge(encoded) if isinstance(encoded, list) else encoded
        place[:] = coco_mask.decode(encoded)
    boxes = np.array([one["bbox"] for one in chosen], dtype=np.float32).reshape(-1, 4)
    return Instances(boxes, masks, np.array([one["bbox_label"] for one in chosen], dtype=np.int64))


def draw_objects(info: Mapping[str, Any], number: Sequence[int]) -> LabelMap:
    """A label map [H, W] of the objects of mmdet's data info: small ones over large ones, crowds ignored, else 0."""
    canvas, objects = np.zeros((info["height"], info["width"]), np.uint8), instances_of(info)
    canvas[instances_of(info, ignored=True).masks.any(axis=0)] = IGNORED
    for index in np.argsort(-objects.masks.sum(axis=(1, 2)), kind="stable"):
        canvas[objects.masks[index]] = number[objects.labels[index]]
    return canvas
