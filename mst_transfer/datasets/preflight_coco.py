"""Do the categories of a COCO file fit the classes of the config?

mmdet numbers the categories in the order of the file and drops names that the file lacks, without a word: a
class that is missing or in another place shifts the names of all that follow. So all classes must be in the
file, in its order.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mst_transfer.datasets.preflight_paths import dataset_path

# Larger files are not parsed twice: only their categories are read.
MAX_BYTES_TO_PARSE = 64 * 2**20
_MAX_IMAGES_TO_FIND = 50


def check_coco(
    place: str,
    dataset: Mapping[str, Any],
    classes: Sequence[str],
    *,
    own_rules: bool = False,
    may_be_empty: bool = False,
) -> None:
    """Checks one dataset in COCO's format.

    Args:
        place: where the dataset stands in the config, for messages.
        dataset: its config.
        classes: names of the classes of the config, in their order.
        own_rules: whether the dataset's class reads the file by other rules than ``CocoDataset`` (LVIS,
            Objects365): then the order of the classes and the names of the images are its own affair.
        may_be_empty: whether the file may be without instances, as those of images to be judged elsewhere.

    Raises:
        FileNotFoundError: if images named in the file are missing.
        ValueError: if the file is not COCO's, no class occurs in it, classes are missing or in another order,
            or it holds no image or no instance of them.
    """
    if not dataset.get("ann_file"):
        return
    path = dataset_path(dataset, str(dataset["ann_file"]))
    small = os.path.getsize(path) <= MAX_BYTES_TO_PARSE
    content = _load(path) if small else {"categories": _categories_only(path)}
    names = [category["name"] for category in content["categories"]]
    _compare_classes(place, path, names, classes, ordered=not own_rules)
    if not small:
        return
    chosen = {category["id"] for category in content["categories"] if category["name"] in set(classes)}
    num_instances = sum(bool(chosen & _category_ids(item)) for item in content.get("annotations", ()))
    if not content["images"] or not (num_instances or may_be_empty):
        raise ValueError(
            f"{place}: {path} has {len(content['images'])} images and {num_instances} instances of the "
            f"{len(classes)} classes: nothing to learn from. Is it the right file?"
        )
    if not own_rules:
        _find_images(place, path, dataset, content["images"])


def _category_ids(annotation: Mapping[str, Any]) -> set[Any]:
    """Categories of an instance, or of the segments that a panoptic annotation lists."""
    return {item.get("category_id") for item in annotation.get("segments_info", [annotation])}


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return {key: content[key] for key in ("categories", "images")} | content
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not an annotation file in COCO's format (images, annotations, categories): {error!r}"
        ) from error


def _categories_only(path: str) -> list[dict[str, Any]]:
    """The categories of a large file, found without parsing the rest."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for match in re.finditer(rb'"categories"\s*:\s*\[', text):
            try:
                start = match.end() - 1
                found, _ = json.JSONDecoder().raw_decode(text[start : start + 2**20].decode("utf-8", "ignore"))
            except json.JSONDecodeError:
                continue
            if found and all(isinstance(item, dict) and "name" in item for item in found):
                return found
    return _load(path)["categories"]


def _compare_classes(place: str, path: str, names: Sequence[str], classes: Sequence[str], *, ordered: bool) -> None:
    if not classes:
        return
    absent = [name for name in classes if name not in names]
    if len(absent) == len(classes):
        raise ValueError(
            f"{place}: none of the classes {_shown(classes)} occurs in {path}, whose categories are "
            f"{_shown(names)}. Set metainfo=dict(classes={tuple(names)!r}) in every dataset, and num_classes="
            f"{len(names)} in the heads."
        )
    if not ordered:
        return
    if absent:
        raise ValueError(
            f"{place}: classes {_shown(absent)} do not occur in {path}; mmdet would shift the names of those "
            f"behind them. Its categories are {_shown(names)}: put those you want into metainfo.classes, in "
            "this order."
        )
    in_file_order = [name for name in names if name in set(classes)]
    if in_file_order != list(classes):
        raise ValueError(
            f"{place}: mmdet numbers classes in the order of the file, so names would be mixed up. "
            f"Set metainfo=dict(classes={tuple(in_file_order)!r}), the order in {path}."
        )


def _shown(names: Sequence[str], limit: int = 8) -> str:
    text = ", ".join(names[:limit])
    return f"[{text}]" if len(names) <= limit else f"[{text}, … {len(names)} in all]"


def _find_images(place: str, path: str, dataset: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> None:
    folder = dataset_path(dataset, (dataset.get("data_prefix") or {}).get("img", ""))
    step = max(len(images) // _MAX_IMAGES_TO_FIND, 1)
    names = [str(image["file_name"]) for image in images[::step] if image.get("file_name")]
    absent = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if absent:
        raise FileNotFoundError(
            f"{place}: {len(absent)} of {len(names)} images of {path} that were looked for are not in "
            f"{folder}, e.g. {absent[0]}. Correct data_prefix.img or complete the folder."
        )
