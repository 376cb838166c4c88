"""What is wrong with the inputs of a run, found before its first step and said with the way out.

:func:`check_datasets` looks at the data of every loader of a config, :func:`check_backbone` at the checkpoint
that the backbone will start from. Both read only what they need and stay quick on large sets.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mst_transfer.datasets.preflight_coco import check_coco
from mst_transfer.datasets.preflight_masks import check_masks
from mst_transfer.datasets.preflight_paths import MissingPaths, dataset_path

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def check_datasets(cfg: Any, loaders: Sequence[str] = LOADERS) -> None:
    """Checks folders, classes and masks of the datasets of a config, its heads and its evaluators.

    Datasets of other kinds than mmdet's COCO and mmseg's, and those on remote storage, are passed over.

    Args:
        cfg: an mmengine ``Config`` with mmdet's or mmseg's ``*_dataloader`` and ``model``.
        loaders: which of ``LOADERS`` the run uses. The test set alone may be without instances.

    Raises:
        FileNotFoundError: names every path that is missing, the layout expected and where to get the data.
        ValueError: if a set is empty, its classes do not occur, masks hold other values than the classes,
            a head has another number of classes, or an evaluator reads another file than its dataset.
    """
    scope = str(cfg.get("default_scope") or "mmengine")
    missing = MissingPaths()
    datasets = list(_unique_datasets(cfg, loaders))
    for place, dataset in datasets:
        missing.look(place, dataset)
    missing.raise_if_any()
    for place, dataset in datasets:
        if dataset.get("backend_args"):
            continue
        kind = _dataset_class(dataset, scope)
        classes = _classes(dataset, kind)
        if classes:
            _check_num_classes(cfg.get("model") or {}, len(classes), place)
        coco = _base(kind, "mmdet.datasets.coco", "CocoDataset")
        if coco is not None:
            own_rules = kind.load_data_list is not coco.load_data_list
            may_be_empty = place.startswith("test_dataloader.")
            check_coco(place, dataset, classes, own_rules=own_rules, may_be_empty=may_be_empty)
        elif _base(kind, "mmseg.datasets.basesegdataset", "BaseSegDataset") is not None:
            check_masks(place, dataset, kind, classes)
    for loader in loaders:
        _check_evaluator(cfg, loader)


def check_backbone(cfg: Any) -> None:
    """Checks that the backbone's checkpoint exists and was trained on inputs normalised as the config does.

    Args:
        cfg: an mmengine ``Config``; nothing is checked unless ``model.backbone`` is of this package.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or ``data_preprocessor`` has another mean or std than the
            checkpoint.
    """
    model = cfg.get("model") or {}
    backbone = model.get("backbone") or {}
    if not str(backbone.get("type", "")).startswith("mst_transfer."):
        return
    path = backbone.get("checkpoint") or (backbone.get("init_cfg") or {}).get("checkpoint")
    if path is None:
        return
    from mst_transfer.checkpoint import read_backbone

    try:
        _, metadata = read_backbone(path, backbone.get("role", "teacher"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"model.backbone.checkpoint: {error} On the command line: --cfg-options "
            "model.backbone.checkpoint=PATH, or model.backbone.checkpoint=None for random weights."
        ) from None
    preprocessor = model.get("data_preprocessor") or {}
    for name in ("mean", "std"):
        if metadata is None or preprocessor.get(name) is None:
            continue
        ours = [value / 255 for value in preprocessor[name]]
        theirs = getattr(metadata, name)
        if any(abs(a - b) > 2e-3 for a, b in zip(ours, theirs, strict=True)):
            raise ValueError(
                f"model.data_preprocessor.{name}={list(preprocessor[name])} is not what {path} was trained "
                f"with: set it to {[round(255 * value, 3) for value in theirs]}"
            )


def _check_evaluator(cfg: Any, loader: str) -> None:
    """An evaluator that names its own annotation file must name the one that its loader's dataset reads."""
    name = loader.replace("_dataloader", "_evaluator")
    evaluator = cfg.get(name) or {}
    datasets = [item for _, item in _unwrap("", (cfg.get(loader) or {}).get("dataset"))]
    reads = [dataset_path(item, str(item["ann_file"])) for item in datasets if item.get("ann_file")]
    several = isinstance(evaluator, list | tuple)
    for index, metric in enumerate(evaluator if several else [evaluator]):
        path = metric.get("ann_file") if isinstance(metric, Mapping) else None
        if not isinstance(path, str) or not path or "://" in path or metric.get("backend_args"):
            continue
        option = f"{name}.{index}.ann_file" if several else f"{name}.ann_file"
        if reads and os.path.abspath(path) not in map(os.path.abspath, reads):
            raise ValueError(
                f"{option}={path} is not the file that {loader}.dataset reads, {', '.join(reads)}: the scores would "
                f"be of other images. Set {option}={reads[0]}, or correct data_root and ann_file of the dataset"
            )
        if not os.path.isfile(path):
            raise ValueError(
                f"{option}={path} does not exist; {loader}.dataset names {', '.join(reads) or 'no annotation file'}. "
                f"Set {option} to the annotation file of the dataset"
            )


def _unique_datasets(cfg: Any, loaders: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dataset of the loaders, inside wrappers too, with its place in the config; each only once."""
    seen: list[Mapping[str, Any]] = []
    for loader in loaders:
        for place, dataset in _unwrap(f"{loader}.dataset", (cfg.get(loader) or {}).get("dataset")):
            if dataset not in seen:
                seen.append(dataset)
                yield place, dataset


def _unwrap(place: str, dataset: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(dataset, Mapping):
        return
    if "dataset" in dataset:
        yield from _unwrap(f"{place}.dataset", dataset["dataset"])
    elif isinstance(dataset.get("datasets"), Sequence):
        for index, item in enumerate(dataset["datasets"]):
            yield from _unwrap(f"{place}.datasets.{index}", item)
    else:
        yield place, dataset


def _dataset_class(dataset: Mapping[str, Any], scope: str) -> Any:
    """The class that the registry of the config's scope builds for a dataset, None if it has none."""
    kind = dataset.get("type")
    if not isinstance(kind, str):
        return kind
    scope = str(dataset.get("_scope_", scope))
    try:
        registry = importlib.import_module(f"{scope}.registry").DATASETS
    except ImportError as error:
        raise ValueError(f"default_scope={scope!r} cannot be imported ({error}); run: mst doctor") from error
    return registry.get(kind)


def _base(kind: Any, module: str, name: str) -> Any:
    """The class of that name that ``kind`` descends from, else None; its library is not imported for this."""
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return next((base for base in bases if base.__name__ == name and base.__module__ == module), None)


def _classes(dataset: Mapping[str, Any], kind: Any) -> tuple[str, ...]:
    own = (dataset.get("metainfo") or {}).get("classes")
    if own is None:
        own = getattr(kind, "METAINFO", {}).get("classes")
    if isinstance(own, str) and os.path.isfile(own):
        own = Path(own).read_text(encoding="utf-8").split("\n")
    return tuple(name for name in own or () if name)


def _check_num_classes(model: Mapping[str, Any], num_classes: int, place: str) -> None:
    for path, value in _find_num_classes(model, "model"):
        if value != num_classes:
            raise ValueError(
                f"{path}.num_classes={value}, but {place} has {num_classes} classes; set {path}.num_classes="
                f"{num_classes}, or metainfo.classes of the dataset"
            )


def _find_num_classes(node: Any, path: str) -> Iterator[tuple[str, int]]:
    """Every head with a number of classes; the RPN and the backbone have none of the dataset's."""
    if isinstance(node, Mapping):
        if isinstance(node.get("num_classes"), int):
            yield path, node["num_classes"]
        for key, value in node.items():
            if key not in ("rpn_head", "backbone"):
                yield from _find_num_classes(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _find_num_classes(value, f"{path}.{index}")
