"""Segmentation masks: which there are for a dataset's images, what values they hold and what these become."""

import inspect
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mst_transfer.datasets.cityscapes_ids import choose_masks
from mst_transfer.files.image_files import MAX_PIXELS
from mst_transfer.files.label_maps import read_label_map
from mst_transfer.preflight.data_files import dataset_path, leaves_folder

IGNORED = 255  # what mmseg maps to "ignore"


def list_pairs(place: str, dataset: Mapping[str, Any], kind: Any) -> list[tuple[str, str]]:
    """Image and mask paths of a dataset, by the rules of mmseg's ``BaseSegDataset``.

    Raises:
        ValueError: if no image has the dataset's suffix; names the suffixes that there are.
    """
    prefix = dataset.get("data_prefix") or {}
    images = dataset_path(dataset, prefix.get("img_path") or "")
    masks = dataset_path(dataset, prefix.get("seg_map_path") or "")
    if hasattr(kind, "match"):  # MaskPairs
        return list(kind.match(images, masks)[0])
    image_suffix = str(option(dataset, kind, "img_suffix"))
    mask_suffix = str(option(dataset, kind, "seg_map_suffix"))
    list_file = dataset_path(dataset, dataset["ann_file"]) if dataset.get("ann_file") else ""
    if os.path.isfile(list_file):
        stems = Path(list_file).read_text(encoding="utf-8").split()
    else:
        files = [path.relative_to(images).as_posix() for path in Path(images).rglob("*") if path.is_file()]
        stems = sorted(name[: -len(image_suffix)] for name in files if name.endswith(image_suffix))
        if not stems:
            endings = Counter(Path(name).suffix for name in files).most_common(3)
            found = ", ".join(f"{count} × {ending or 'without a suffix'}" for ending, count in endings)
            raise ValueError(
                f"{place}: no file below {images} ends in {image_suffix!r} "
                f"(found: {found or 'no file at all'}). Set img_suffix, or correct data_prefix.img_path."
            )
    if not stems:
        raise ValueError(f"{place}: {list_file} names no image")
    climbing = [stem for stem in stems if leaves_folder(stem)]
    if climbing:
        raise ValueError(
            f"{place}: {len(climbing)} of {len(stems)} names in {list_file} lead out of {images}, e.g. "
            f"{climbing[0]!r}. Write them relative to data_prefix.img_path, without '..'"
        )
    paths = [f"{masks}/{stem}{mask_suffix}" for stem in stems]
    if getattr(kind, "reads_label_ids", False):
        paths = [path for path, _ in choose_masks(paths)]
    return [(f"{images}/{stem}{image_suffix}", path) for stem, path in zip(stems, paths, strict=True)]


def option(dataset: Mapping[str, Any], kind: Any, name: str) -> Any:
    """An option of a dataset from the config, or the default of its class."""
    if name in dataset:
        return dataset[name]
    for base in kind.__mro__:
        parameter = inspect.signature(base.__init__).parameters.get(name)
        if parameter is not None:
            return parameter.default
    raise ValueError(f"{kind.__name__} has no option {name!r}")


def value_map(dataset: Mapping[str, Any], kind: Any, classes: Sequence[str], ignored: int) -> dict[int, int]:
    """What the allowed values of a dataset's masks become: the number of a class, or ``ignored``.

    A dataset that picks some of its class's METAINFO classes maps the others to 255. ``reduce_zero_label`` (ADE20K)
    makes 0 ignored, and every other value one less. The order is mmseg's: first the zero, then the pick.
    """
    full = list(getattr(kind, "METAINFO", {}).get("classes") or classes)
    picked = {index: classes.index(name) if name in classes else IGNORED for index, name in enumerate(full)}
    if option(dataset, kind, "reduce_zero_label"):
        picked = {0: IGNORED} | {index + 1: new for index, new in picked.items()}
    return picked | {ignored: ignored, IGNORED: IGNORED}


def count_values(path: str, max_pixels: int = MAX_PIXELS) -> tuple[dict[int, int], tuple[int, int]]:
    """Number of pixels of each value of a mask file, and its width and height.

    Raises:
        ValueError: if it cannot be read, has several channels, or other numbers than 0 to 255.
    """
    values = read_label_map(path, max_pixels)
    found = np.flatnonzero(counts := np.bincount(values.ravel()))  # several times quicker than sorting
    return dict(zip(found.tolist(), counts[found].tolist(), strict=True)), values.shape[::-1]
