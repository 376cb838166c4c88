"""Tasks of a card: labelled images as a config of mmdet or mmseg describes them, or as class folders."""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.card.measures import digest_of
from mst_transfer.configs.datasets import unwrap
from mst_transfer.datasets.coco_columns import load_json
from mst_transfer.files.label_maps import read_label_map

SEGMENTATION, DETECTION, CLASSIFICATION = "segmentation", "detection", "classification"
IGNORED = 255
_MAX_OBJECT_CLASSES = 30  # of dense probes on objects; above, the classes are the file's supercategories
LabelMap = NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """A head that is trained on a task: a config, and what is changed in it; its data are the task's."""

    name: str
    config: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Data to measure on.

    Attributes:
        name: in the card.
        kind: ``SEGMENTATION``, ``DETECTION`` or ``CLASSIFICATION``.
        recipes: heads; the first one's config names the data. Of a classification none.
        root: of a classification, ``{train,val}/<class>/``.
        coco, coco_images: files that take the place of a detection config's, as for ``mst train``.
        options: changes to the configs of all recipes.
        group: pattern of file names whose groups together name a sequence; ``…/N``: its last group is a number, of
            which N belong together. Validation images of one sequence are drawn together.
        dense: whether dense probes run on it.
    """

    name: str
    kind: str
    recipes: tuple[Recipe, ...] = ()
    root: str = ""
    coco: tuple[str, ...] = ()
    coco_images: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    dense: bool = True


def heads(*configs: str, frozen: bool = False) -> tuple[Recipe, ...]:
    """Recipes named as their configs without ``mst_``; ``frozen``: and the first with a frozen backbone."""
    recipes = [Recipe(Path(config).stem.removeprefix("mst_"), config) for config in configs]
    if frozen:
        kept = {"+model.backbone.frozen_stages": "all"}
        recipes.append(Recipe(f"{recipes[0].name}_frozen", recipes[0].config, kept))
    return tuple(recipes)


_CAMVID_BLOCK = r"(\w+?)_f?(\d+)_leftImg8bit/300"  # ten seconds
# What ``--on`` knows, below $MST_DATA_ROOT.
CATALOGUE: dict[str, tuple[Task, ...]] = {
    "sample": (
        Task("sample", SEGMENTATION, heads("seg_configs/mst_setr_pup_sample.py")),
        Task("sample_objects", DETECTION, heads("det_configs/mst_maskrcnn_sample.py", frozen=True), dense=False),
    ),
    "camvid": (
        Task("camvid", SEGMENTATION, heads("seg_configs/mst_setr_pup_camvid_drives.py",
                                            "seg_configs/mst_linear_camvid.py"), group=_CAMVID_BLOCK),
    ),
    "camvid_official": (
        Task("camvid_official", SEGMENTATION, heads("seg_configs/mst_setr_pup_camvid.py"), group=_CAMVID_BLOCK),
    ),
    "cityscapes": (
        Task("cityscapes", SEGMENTATION, heads("seg_configs/mst_setr_pup_cityscapes.py",
                                                "seg_configs/mst_linear_vit_small_cityscapes.py")),
    ),
    "ade20k": (
        Task("ade20k", SEGMENTATION, heads("seg_configs/mst_setr_pup_vit_small_ade20k.py",
                                            "seg_configs/mst_linear_vit_small_ade20k.py")),
    ),
    "coco": (Task("coco", DETECTION, heads("det_configs/mst_maskrcnn_coco.py", frozen=True)),),
    "coco_mini": (Task("coco_mini", DETECTION, heads("det_configs/mst_maskrcnn_coco_mini.py", frozen=True)),),
}  # fmt: skip


@dataclass(frozen=True)
class Labelled:
    """An image and its labels."""

    path: str
    label_map: Callable[[], LabelMap]  # [H, W], the number of a class or 255
    files: tuple[str, ...] = ()  # further files that the labels come from


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


def load_task_config(task: Task, recipe: Recipe | None = None, **run: Any) -> Any:
    """The checked config of a recipe (None: the first) with the task's data; ``run``: options of ``load_run_config``.

    Raises:
        FileNotFoundError, ValueError: of ``mst train``: data that are not there, or not as the config says.
    """
    from mst_transfer.engine.run import load_run_config

    recipe = recipe or task.recipes[0]
    options = {**task.options, **recipe.options}
    coco: dict[str, Any] = dict(coco=task.coco or None, coco_images=task.coco_images or None)
    cfg = load_run_config(recipe.config, cfg_options=options, **coco, **run)
    if recipe.config != task.recipes[0].config:
        first = load_task_config(task)
        for loader in ("train_dataloader", "val_dataloader"):
            cfg[loader].dataset = copy.deepcopy(first[loader].dataset)
    return cfg


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


def build_without_pipeline(cfg: Any, dataset: Any) -> Any:
    """Builds a data set of a config's library that gives ``get_data_info`` alone."""
    from importlib import import_module

    from mmengine.registry import init_default_scope

    init_default_scope(cfg.default_scope)
    dataset = copy.deepcopy(dataset)
    for _, leaf in unwrap("", dataset):
        leaf["pipeline"] = []
    return import_module(f"{cfg.default_scope}.registry").DATASETS.build(dataset)


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
    return Labelled(info["img_path"], lambda: draw_objects(info, number))


def draw_objects(info: Mapping[str, Any], number: Sequence[int]) -> LabelMap:
    """A label map [H, W] of the objects of mmdet's data info: small ones over large ones, crowds ignored, else 0."""
    from pycocotools import mask as coco_mask

    height, width = info["height"], info["width"]
    canvas, parts = np.zeros((height, width), np.uint8), []
    for instance in info["instances"]:
        encoded = instance["mask"]
        if not isinstance(encoded, Mapping) or isinstance(encoded["counts"], list):
            encoded = coco_mask.frPyObjects(encoded, height, width)
            encoded = coco_mask.merge(encoded) if isinstance(encoded, list) else encoded
        value = IGNORED if instance["ignore_flag"] else number[instance["bbox_label"]]
        parts.append((float(coco_mask.area(encoded)), value, encoded))
    for _, value, encoded in sorted(parts, key=lambda part: (part[1] != IGNORED, -part[0])):
        canvas[coco_mask.decode(encoded).astype(bool)] = value
    return canvas


def sequences(paths: Sequence[str], group: str) -> NDArray[np.int64] | None:
    """Number [n] of the sequence that each file belongs to; None without a pattern.

    Raises:
        ValueError: the pattern is none, has no group, or does not fit a file's name.
    """
    if not group:
        return None
    pattern, _, every = group.rpartition("/") if re.search(r"/\d+$", group) else (group, "", "")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--group {group!r} is no regular expression: {error}") from error
    names: list[tuple[str, ...]] = []
    for path in paths:
        found = compiled.search(os.path.basename(path))
        if found is None or not found.groups() or (every and not found.groups()[-1].isdigit()):
            last = ", the last a number," * bool(every)
            raise ValueError(f"--group {group!r} finds no (group){last} in the file's name {os.path.basename(path)!r}")
        words = found.groups("")
        names.append((*words[:-1], str(int(words[-1]) // int(every))) if every else words)
    order = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] for name in names])
