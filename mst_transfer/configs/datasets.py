"""Finds the datasets of a config, their kinds and their classes; and the entries of other sections."""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
AUTO = "auto"  # metainfo.classes: take the names from the annotations


def all_datasets(cfg: Any, loaders: Sequence[str] = LOADERS) -> Iterator[tuple[str, Any]]:
    """Every dataset of the loaders, inside wrappers too, with its place in the config."""
    for loader in loaders:
        yield from unwrap(f"{loader}.dataset", (cfg.get(loader) or {}).get("dataset"))


def unique_datasets(cfg: Any, loaders: Sequence[str] = LOADERS) -> Iterator[tuple[str, Any]]:
    """As ``all_datasets``, but each of several equal ones only once."""
    seen: list[Any] = []
    for place, dataset in all_datasets(cfg, loaders):
        if dataset not in seen:
            seen.append(dataset)
            yield place, dataset


def items(node: Mapping[str, Any], name: str, place: str = "") -> Iterator[tuple[str, Any]]:
    """Place in the config and content of each entry of a section that holds one, a list of them, or none."""
    section, place = node.get(name) or [], f"{place}{name}"
    if not isinstance(section, list | tuple):
        yield place, section
        return
    for index, item in enumerate(section):
        yield f"{place}.{index}", item


def unwrap(place: str, dataset: Any) -> Iterator[tuple[str, Any]]:
    """The datasets inside wrappers: under ``dataset``, or several under ``datasets``."""
    if not isinstance(dataset, Mapping):
        return
    if "dataset" in dataset:
        yield from unwrap(f"{place}.dataset", dataset["dataset"])
    elif isinstance(dataset.get("datasets"), Sequence):
        for index, item in enumerate(dataset["datasets"]):
            yield from unwrap(f"{place}.datasets.{index}", item)
    else:
        yield place, dataset


def dataset_class(dataset: Mapping[str, Any], scope: str) -> Any:
    """The class that the registry of the config's scope builds for a dataset, None if it has none.

    Raises:
        ValueError: if the scope's library cannot be imported.
    """
    kind = dataset.get("type")
    if not isinstance(kind, str):
        return kind
    scope = str(dataset.get("_scope_", scope))
    try:
        registry = importlib.import_module(f"{scope}.registry").DATASETS
    except ImportError as error:
        raise ValueError(f"default_scope={scope!r} cannot be imported ({error}); run: mst doctor") from error
    return registry.get(kind)


def coco_base(kind: Any) -> Any:
    """mmdet's ``CocoDataset`` if ``kind`` descends from it, else None."""
    return _base(kind, "mmdet.datasets.coco", "CocoDataset")


def is_segmentation(kind: Any) -> bool:
    """Whether ``kind`` descends from mmseg's ``BaseSegDataset``."""
    return _base(kind, "mmseg.datasets.basesegdataset", "BaseSegDataset") is not None


def numbers_by_file(kind: Any) -> bool:
    """Whether ``kind`` numbers the categories of its file as ``CocoDataset`` does (LVIS, Objects365 do not)."""
    base = coco_base(kind)
    return base is not None and kind.load_data_list is base.load_data_list


def _base(kind: Any, module: str, name: str) -> Any:
    """The class of that name that ``kind`` descends from, else None; its library is not imported for this."""
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return next((base for base in bases if base.__name__ == name and base.__module__ == module), None)


def own_classes(dataset: Mapping[str, Any]) -> Any:
    """``metainfo.classes`` of a dataset's config, None if it leaves them to its class."""
    return (dataset.get("metainfo") or {}).get("classes")


def class_names(dataset: Mapping[str, Any], kind: Any) -> tuple[str, ...]:
    """The classes of a dataset, in their order; empty if they are still to be found (``"auto"``) or unknown."""
    own = own_classes(dataset)
    if own == AUTO:
        return ()
    if own is None:
        own = getattr(kind, "METAINFO", {}).get("classes")
    if isinstance(own, str):
        own = Path(own).read_text(encoding="utf-8").split("\n") if os.path.isfile(own) else (own,)
    return tuple(name for name in own or () if name)
