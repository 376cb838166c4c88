"""A file in COCO's format as columns of numbers: what checks of hundreds of thousands of instances need."""

import json
import mmap
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.files.garbage_collection import paused_collection

# Only the categories of larger files are read where no more is needed.
MAX_BYTES_TO_PARSE = 64 * 2**20


@dataclass(frozen=True)
class CocoColumns:
    """Images (N) and annotations (M) of a file; NaN and None stand for what it lacks."""

    path: str
    categories: list[dict[str, Any]]  # as in the file, in its order
    image_ids: NDArray[np.int64]  # [N]
    image_sizes: NDArray[np.float64]  # [N, 2], width and height in pixels
    file_names: list[Any]  # N texts
    ids: NDArray[np.int64]  # [M], of the annotations
    of_image: NDArray[np.int64]  # [M], image_id
    of_category: NDArray[np.int64]  # [M], category_id
    boxes: NDArray[np.float64]  # [M, 4], x, y, width, height in pixels; NaN where the file has not four numbers
    areas: NDArray[np.float64]  # [M]
    crowd: NDArray[np.bool_]  # [M], whether iscrowd is set
    has_crowd: NDArray[np.bool_]  # [M], whether there is an iscrowd at all
    odd_crowd: NDArray[np.bool_]  # [M], whether it is something else than 0 or 1
    ignored: NDArray[np.bool_]  # [M], whether ignore is set
    segmentations: list[Any]  # M values

    def rows_of_images(self) -> NDArray[np.int64]:
        """``[M]`` row of each annotation's image, −1 where the file lacks the image. Needs unique image ids."""
        return rows_of(self.of_image, self.image_ids)

    def some_annotations(self, rows: Any) -> str:
        """Says how many annotations ``rows`` (a mask or indices) are, with the ids of the first."""
        return _counted("annotation", self.ids, rows)

    def some_images(self, rows: Any) -> str:
        """As ``some_annotations``, of images."""
        return _counted("image", self.image_ids, rows)


def _counted(what: str, ids: NDArray[np.int64], rows: Any) -> str:
    found = ids[rows].tolist()
    return f"{len(found)} of {len(ids)} {what}s (id {', '.join(map(str, found[:5]))}{', …' if len(found) > 5 else ''})"


def rows_of(values: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each value its position in ``ids``, −1 where it is not there."""
    if not len(ids):
        return np.full(len(values), -1)
    order = np.argsort(ids, kind="stable")
    found = np.minimum(np.searchsorted(ids[order], values), len(ids) - 1)
    rows = order[found]
    return np.where(ids[rows] == values, rows, -1)


def load_json(path: str) -> dict[str, Any]:
    """The content of a file in COCO's format.

    Raises:
        ValueError: if it is not one.
    """
    try:
        with open(path, encoding="utf-8") as file, paused_collection():
            content = json.load(file)
        content = {key: content[key] for key in ("categories", "images")} | content
        for key in ("categories", "images", "annotations"):
            if any(not isinstance(item, dict) for item in content.get(key, ())):
                raise TypeError(f"{key} must be a list of objects")
        return content
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not an annotation file in COCO's format (images, annotations, categories): {repr(error)[:300]}"
        ) from error


def read_categories(path: str) -> list[dict[str, Any]]:
    """The categories of a file; of a large one without parsing the rest.

    Raises:
        ValueError: if it is not in COCO's format.
    """
    if os.path.getsize(path) > MAX_BYTES_TO_PARSE:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            for match in re.finditer(rb'"categories"\s*:\s*\[', text):
                try:
                    start = match.end() - 1
                    found, _ = json.JSONDecoder().raw_decode(text[start : start + 2**20].decode("utf-8", "ignore"))
                except json.JSONDecodeError:
                    continue
                if found and all(isinstance(item, dict) and "name" in item for item in found):
                    return found
    return load_json(path)["categories"]


def read_columns(path: str) -> CocoColumns:
    """Reads a file.

    Raises:
        ValueError: if it is not in COCO's format, or an id in it is not a whole number.
    """
    size = os.path.getsize(path)
    if size > MAX_BYTES_TO_PARSE:
        print(f"checking {path} ({size / 2**20:.0f} MiB) …", file=sys.stderr, flush=True)
    content = load_json(path)
    images, annotations = content["images"], content.get("annotations") or []
    return CocoColumns(
        path=path,
        categories=content["categories"],
        image_ids=_integers(path, "image", images, "id"),
        image_sizes=np.stack([_numbers(_column(images, key)) for key in ("width", "height")], axis=1),
        file_names=_column(images, "file_name"),
        ids=_integers(path, "annotation", annotations, "id"),
        of_image=_integers(path, "annotation", annotations, "image_id"),
        of_category=_integers(path, "annotation", annotations, "category_id"),
        boxes=_boxes(_column(annotations, "bbox")),
        areas=_numbers(_column(annotations, "area")),
        crowd=np.array([bool(item.get("iscrowd")) for item in annotations], bool),
        has_crowd=np.array(["iscrowd" in item for item in annotations], bool),
        odd_crowd=np.array([item.get("iscrowd", 0) not in (0, 1) for item in annotations], bool),
        ignored=np.array([bool(item.get("ignore")) for item in annotations], bool),
        segmentations=_column(annotations, "segmentation"),
    )


def _column(items: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [item.get(key) for item in items]


def _integers(path: str, what: str, items: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.int64]:
    values = _column(items, key)
    if set(map(type, values)) - {int}:
        index = next(index for index, value in enumerate(values) if type(value) is not int)
        raise ValueError(
            f"{path}: {what}s[{index}].{key} is {values[index]!r}; it must be a whole number. Write the ids as "
            "numbers, without quotes"
        )
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise ValueError(
            f"{path}: {what}s have a {key} beyond 64 bits ({max(values, key=abs)}); renumber them"
        ) from error


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    if set(map(type, values)) - {int, float}:
        values = [value if type(value) in (int, float) else np.nan for value in values]
    return np.array(values, np.float64)


def _boxes(values: list[Any]) -> NDArray[np.float64]:
    sound = set(map(type, values)) <= {list} and set(map(len, values)) <= {4}
    rows = values if sound else [v if isinstance(v, list) and len(v) == 4 else [np.nan] * 4 for v in values]
    return _numbers(list(chain.from_iterable(rows))).reshape(-1, 4)
