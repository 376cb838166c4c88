"""Tasks of a card: which data and heads, as configs of mmdet and mmseg or class folders describe them."""

import contextlib
import copy
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.configs.datasets import AUTO, LOADERS, items, unwrap
from mst_transfer.configs.read import DETECTION, SEGMENTATION
from mst_transfer.engine.fit.infer_classes import NAMES_FILE

CLASSIFICATION = "classification"


@dataclass(frozen=True)
class Recipe:
    """A head that is trained on a task: a config, and what is changed in it; its data are the task's."""

    name: str
    config: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Data to measure on."""

    name: str  # in the card
    kind: str  # SEGMENTATION, DETECTION or CLASSIFICATION
    recipes: Sequence[Recipe] = ()  # heads; the first one's config names the data. Of a classification none
    root: str = ""  # of a classification, ``{train,val}/<class>/``
    coco: Sequence[str] = ()  # files that take the place of a detection config's, as for ``mst train``
    coco_images: Sequence[str] = ()
    masks: Sequence[str] = ()  # patterns that take the place of a segmentation config's data, likewise
    options: Mapping[str, Any] = field(default_factory=dict)  # changes to the configs of all recipes
    group: str = ""  # of validation images that are drawn together, see sequences
    head_metric: str = "mask mAP"  # that the verdict on a detection's heads rests on; "box mAP": no masks are learned
    dense: bool = True  # whether dense probes run on it
    held_out: str = ""  # pattern of paths of training images that take the place of the validation images


def heads(*configs: str, frozen: bool = False) -> list[Recipe]:
    """Recipes named as their configs without ``mst_``; ``frozen``: and the first with a frozen backbone."""
    recipes = [Recipe(Path(config).stem.removeprefix("mst_"), config) for config in configs]
    if frozen:
        kept = {"+model.backbone.frozen_stages": "all"}
        recipes.append(Recipe(f"{recipes[0].name}_frozen", recipes[0].config, kept))
    return recipes


_CAMVID_BLOCK = r"(\w+?)_f?(\d+)_leftImg8bit/300"  # ten seconds


CATALOGUE: dict[str, tuple[Task, ...]] = {
    "sample": (
        Task("sample", SEGMENTATION, heads("seg_configs/mst_setr_pup_sample.py")),
        Task("sample_objects", DETECTION, heads("det_configs/mst_maskrcnn_sample.py", frozen=True), dense=False),
    ),
    "camvid": (
        Task("camvid", SEGMENTATION, heads("seg_configs/mst_setr_pup_camvid.py", "seg_configs/mst_linear_camvid.py"),
             group=_CAMVID_BLOCK, held_out="/0006R0/"),
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


def own_masks(root: str) -> dict[str, Any]:
    """Changes to a recipe for Cityscapes so that it reads masks in that layout below another root.

    The classes are the root's own, ``classes.txt`` or the values in its masks, but for Cityscapes as downloaded.
    """
    changes: dict[str, Any] = dict(data_root=root)
    as_downloaded = any(Path(root, "gtFine", "train").rglob("*_gtFine_labelIds.png"))
    if not as_downloaded or Path(root, NAMES_FILE).is_file():
        changes |= dict(type="BaseSegDataset", metainfo=dict(classes=AUTO))
        changes |= dict(img_suffix="_leftImg8bit.png", seg_map_suffix="_gtFine_labelTrainIds.png")
    return {f"+{loader}.dataset.{key}": value for loader in LOADERS for key, value in changes.items()}


def load_task_config(task: Task, recipe: Recipe | None = None, quiet: bool = True, **run: Any) -> Any:
    """The checked config of a recipe (None: the first) with the task's data; ``run``: options of ``load_run_config``.

    ``quiet``: what is fitted to the data is not said, since it was said before.

    Raises:
        FileNotFoundError, ValueError: of ``mst train``: data that are not there, or not as the config says.
    """
    from mst_transfer.engine.run import load_run_config

    recipe = recipe or task.recipes[0]
    options = {**task.options, **recipe.options}
    coco: dict[str, Any] = dict(coco=task.coco or None, coco_images=task.coco_images or None)
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        cfg = load_run_config(recipe.config, cfg_options=options, masks=task.masks or None, **coco, **run)
    if recipe.config != task.recipes[0].config:
        first = load_task_config(task)
        for loader in ("train_dataloader", "val_dataloader"):
            cfg[loader].dataset = copy.deepcopy(first[loader].dataset)
    elif task.held_out:
        train = build_without_pipeline(cfg, cfg.train_dataloader.dataset)
        paths = [train.get_data_info(index)["img_path"] for index in range(len(train))]
        chosen = [index for index, path in enumerate(paths) if re.search(task.held_out, path)]
        validate_on_training_images(cfg, chosen)
        rest = sorted(set(range(len(paths))) - set(chosen))
        cfg.train_dataloader.dataset = only_indices(cfg.train_dataloader.dataset, rest, cfg)
    return cfg


def build_without_pipeline(cfg: Any, dataset: Any) -> Any:
    """Builds a data set of a config's library that gives ``get_data_info`` alone."""
    from mmengine.registry import DATASETS, init_default_scope

    init_default_scope(cfg.default_scope)
    dataset = copy.deepcopy(dataset)
    for _, leaf in unwrap("", dataset):
        leaf["pipeline"] = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools says four lines a file
        return DATASETS.build(dataset)


def only_indices(dataset: Mapping[str, Any], chosen: Sequence[int], cfg: Any) -> Any:
    """A data set's config with the images of these numbers alone, of several joined ones too."""
    leaves = [leaf for _, leaf in unwrap("", dataset)]
    kept, start = [], 0
    for leaf in leaves:
        length = len(build_without_pipeline(cfg, leaf))
        mine = sorted(index - start for index in chosen if start <= index < start + length)
        if mine:
            known = leaf.get("indices")
            kept.append({**copy.deepcopy(leaf), "indices": [known[index] for index in mine] if known else mine})
        start += length
    return kept[0] if len(kept) == 1 else dict(type="ConcatDataset", datasets=kept)


def validate_on_training_images(cfg: Any, held_out: Sequence[int]) -> None:
    """Makes held-out training images the validation set, seen as validation images are."""
    from mst_transfer.preflight.data_files import dataset_path

    pipeline = next(leaf for _, leaf in unwrap("", cfg.val_dataloader.dataset))["pipeline"]
    dataset = only_indices(cfg.train_dataloader.dataset, held_out, cfg)
    for _, leaf in unwrap("", dataset):
        leaf["pipeline"] = copy.deepcopy(pipeline)
        for _, metric in items(cfg, "val_evaluator"):
            if metric.get("ann_file"):
                metric["ann_file"] = dataset_path(leaf, leaf["ann_file"])
    cfg.val_dataloader.dataset = dataset


def sequences(paths: Sequence[str], group: str) -> NDArray[np.int64] | None:
    """Number [n] of the sequence that each file belongs to; None without a pattern.

    Groups of the pattern in a file's name together name its sequence; ``…/N``: the last group is a number, of which N
    belong together.

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
