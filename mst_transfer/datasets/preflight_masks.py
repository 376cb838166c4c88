"""Do the values in segmentation masks fit the classes of the config? A histogram before the first step."""

from __future__ import annotations

import inspect
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mst_transfer.datasets.preflight_paths import dataset_path

MAX_MASKS = 400
MAX_SECONDS = 10.0


def check_masks(place: str, dataset: Mapping[str, Any], kind: Any, classes: Sequence[str]) -> None:
    """Checks one dataset of mmseg: images, their masks, and the values in a sample of the masks.

    All masks of a small set are read; of a larger one up to ``MAX_MASKS``, evenly spaced, in ``MAX_SECONDS``.

    Args:
        place: where the dataset stands in the config, for messages.
        dataset: its config.
        kind: its class, a ``BaseSegDataset``.
        classes: names of the classes of the config.

    Raises:
        FileNotFoundError: if masks are missing.
        ValueError: if there are no images, the dataset's class has no such classes, or a mask holds a value
            that is neither a class nor ignored.
    """
    _check_subset(place, kind, classes)
    pairs = list_pairs(place, dataset, kind)
    absent = [mask for _, mask in pairs if not os.path.isfile(mask)]
    if absent:
        raise FileNotFoundError(
            f"{place}: {len(absent)} of {len(pairs)} images have no mask, e.g. {absent[0]}. Complete the "
            "folder, or correct data_prefix.seg_map_path and seg_map_suffix."
        )
    allowed = _allowed_values(dataset, kind, classes)
    ignored = int(dataset.get("ignore_index", 255))
    total: Counter[int] = Counter()
    started = time.monotonic()
    for _, path in pairs[:: max(-(-len(pairs) // MAX_MASKS), 1)]:
        counts = count_values(path)
        wrong = sorted(set(counts) - allowed)
        if wrong:
            raise ValueError(_wrong_values(place, path, wrong, counts, len(allowed - {ignored}), ignored))
        total.update(counts)
        if time.monotonic() - started > MAX_SECONDS:
            break
    if not set(total) - {ignored}:
        raise ValueError(
            f"{place}: every pixel of the masks below {os.path.dirname(pairs[0][1])} is {ignored} (ignored): "
            "nothing to learn from. Are they the right masks?"
        )


def _check_subset(place: str, kind: Any, classes: Sequence[str]) -> None:
    """A class of datasets that has classes of its own can only be used with some of them."""
    full: Sequence[str] = getattr(kind, "METAINFO", {}).get("classes") or ()
    strangers = [name for name in classes if full and name not in full]
    if strangers:
        raise ValueError(
            f"{place}: {kind.__name__} has no class {', '.join(map(repr, strangers))}; its classes are "
            f"{', '.join(full)}. For classes of your own use type='BaseSegDataset', with img_suffix and "
            "seg_map_suffix as your files end"
        )


def list_pairs(place: str, dataset: Mapping[str, Any], kind: Any) -> list[tuple[str, str]]:
    """Image and mask paths of a dataset, by the rules of mmseg's ``BaseSegDataset``.

    Raises:
        ValueError: if no image has the dataset's suffix; names the suffixes that there are.
    """
    prefix = dataset.get("data_prefix") or {}
    images = dataset_path(dataset, prefix.get("img_path") or "")
    masks = dataset_path(dataset, prefix.get("seg_map_path") or "")
    image_suffix = _option(dataset, kind, "img_suffix")
    mask_suffix = _option(dataset, kind, "seg_map_suffix")
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
    return [(f"{images}/{stem}{image_suffix}", f"{masks}/{stem}{mask_suffix}") for stem in stems]


def _option(dataset: Mapping[str, Any], kind: Any, name: str) -> str:
    """A suffix from the config, or the default of the dataset's class."""
    if name in dataset:
        return str(dataset[name])
    for base in kind.__mro__:
        parameter = inspect.signature(base.__init__).parameters.get(name)
        if parameter is not None:
            return str(parameter.default)
    raise ValueError(f"{kind.__name__} has no option {name!r}")


def _allowed_values(dataset: Mapping[str, Any], kind: Any, classes: Sequence[str]) -> set[int]:
    """Values that a mask may hold: the ids of the class list that the files follow, and the ignored one.

    A dataset that picks some of its class's METAINFO classes maps the others to "ignore": then the files
    follow the full list.
    """
    full = getattr(kind, "METAINFO", {}).get("classes") or classes
    shift = 1 if dataset.get("reduce_zero_label") else 0
    return set(range(max(len(full), len(classes)) + shift)) | {int(dataset.get("ignore_index", 255)), 255}


def count_values(path: str) -> dict[int, int]:
    """Number of pixels of each value of a mask file.

    Raises:
        ValueError: if it cannot be read or has several channels.
    """
    try:
        with Image.open(path) as image:
            values: NDArray[Any] = np.asarray(image)
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"mask {path} cannot be read ({error}); write it again") from error
    if values.ndim != 2:
        raise ValueError(
            f"mask {path} has {values.shape[-1]} channels: colours instead of class ids? A mask is one "
            "channel of 8 bits, whose value is the number of the class"
        )
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


def _wrong_values(
    place: str, path: str, wrong: list[int], counts: Mapping[int, int], num_values: int, ignored: int
) -> str:
    total = sum(counts.values())
    histogram = ", ".join(f"{value}: {100 * count / total:.1f} %" for value, count in sorted(counts.items()))
    hint = ""
    if path.endswith("_gtFine_labelIds.png") or (max(wrong) <= 33 and num_values == 19):
        hint = " These look like Cityscapes labelIds: training wants labelTrainIds."
    return (
        f"{place}: mask {path} holds {', '.join(map(str, wrong))}; allowed are 0 to {num_values - 1} for the "
        f"{num_values} classes and {ignored} for ignored pixels. Its values: {histogram}.{hint} Convert the "
        "masks, or correct metainfo.classes and the heads' num_classes."
    )
