"""Checks the instance masks of a file in COCO's format: polygons and run lengths."""

import re
from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from mst_transfer.datasets.coco_columns import CocoColumns
from mst_transfer.preflight.coco_records import Selection, Use
from mst_transfer.preflight.findings import Finding, note
from mst_transfer.runs.progress import Progress

CHUNK = 20_000  # annotations at a time: bounds the memory for coordinates
_COMPRESSED = re.compile("[0-o]*[0-O]")  # six bits a character: five of a number, one that says whether more follow
_ALLOWED = "a list of polygons [[x1, y1, x2, y2, x3, y3, …], …] or run lengths {size: [height, width], counts: …}"


def check_masks(columns: CocoColumns, selection: Selection, use: Use) -> Iterator[Finding]:
    """Checks the masks that a run reads.

    mmdet drops polygons with an odd number of coordinates or fewer than three points, and does not learn from an
    instance of such polygons alone; pycocotools fails at a mask that begins with one, when the first evaluation is
    due.
    """
    if not (use.masks or use.scores_masks):
        return
    faults: dict[str, list[int]] = defaultdict(list)
    rows = columns.rows_of_images()
    progress = Progress(f"checking masks of {columns.path}:", len(columns.ids))
    for start in range(0, len(columns.ids), CHUNK):
        part = slice(start, start + CHUNK)
        read = selection.instances[part] | (rows[part] >= 0 if use.scores_masks else False)
        polygons = []
        for index in (np.flatnonzero(read) + start).tolist():
            value = columns.segmentations[index]
            if isinstance(value, list) and value and all(isinstance(polygon, list) for polygon in value):
                polygons.append(index)
            elif value:  # what is empty is judged by check_fields
                faults[_run_lengths_fault(value, columns.image_sizes[rows[index]])].append(index)
        _sort_polygons(columns, rows, np.array(polygons, np.int64), faults)
        progress(start)
    faults.pop("", None)
    yield from _say(columns, rows, faults, use)


def _run_lengths_fault(value: Any, image_size: NDArray[np.float64]) -> str:
    size, counts = (value.get("size"), value.get("counts")) if isinstance(value, dict) else (None, None)
    if not (isinstance(size, list) and isinstance(counts, list | str) and counts):
        return "no mask"
    if size != image_size[::-1].tolist():
        return "size"
    return "" if add_up(counts, int(size[0]) * int(size[1])) else "run lengths"


def add_up(counts: list[Any] | str, num_pixels: int) -> bool:
    """Whether run lengths, plain or in COCO's compressed text, are sound and cover exactly so many pixels.

    Of a text that covers fewer, pycocotools fills the rest of the mask with whatever the memory holds. hotcoco refuses
    a text that covers more than it is told, so one that it refuses for a pixel less covers all.
    """
    if isinstance(counts, list):
        return all(type(count) is int and count >= 0 for count in counts) and sum(counts) == num_pixels

    def fits(limit: int) -> bool:
        try:
            hotcoco.mask.rle_from_string(counts, 1, limit)
        except (ValueError, OverflowError):
            return False
        return True

    return _COMPRESSED.fullmatch(counts) is not None and fits(num_pixels) and not fits(num_pixels - 1)


def _sort_polygons(
    columns: CocoColumns, rows: NDArray[np.int64], indices: NDArray[np.int64], faults: dict[str, list[int]]
) -> None:
    """Adds the annotations of ``indices``, whose masks are lists of lists, to the faults of their polygons."""
    values = [columns.segmentations[index] for index in indices]
    number = np.fromiter(map(len, values), np.int64, len(values))
    owner = np.repeat(np.arange(len(values)), number)
    polygons = list(chain.from_iterable(values))
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    good = (lengths >= 6) & (lengths % 2 == 0)
    if not good.all():
        num_good = np.bincount(owner[good], minlength=len(values))
        faults["short"] += indices[(num_good < number) & (num_good > 0)].tolist()
        faults["empty"] += indices[num_good == 0].tolist()
        faults["fails"] += indices[lengths[np.cumsum(number) - number] < 5].tolist()
        polygons = [polygon for polygon, fits in zip(polygons, good, strict=True) if fits]
        lengths, owner = lengths[good], owner[good]
    if not polygons:
        return
    coordinates = array("d")
    try:
        for polygon in polygons:
            coordinates.fromlist(polygon)  # takes numbers only, and is several times faster than numpy here
    except (TypeError, OverflowError):
        wrong = [any(type(number) not in (int, float) for number in polygon) for polygon in polygons]
        faults["numbers"] += np.unique(indices[owner[wrong]]).tolist()
        return
    numbers, starts = np.frombuffer(coordinates), np.cumsum(lengths) - lengths
    finite = np.logical_and.reduceat(np.isfinite(numbers), starts)
    faults["numbers"] += np.unique(indices[owner[~finite]]).tolist()
    limits = columns.image_sizes[rows[indices[owner]]]
    outside = np.zeros(len(starts), bool)
    for axis in (0, 1):
        along = numbers[axis::2]
        outside |= np.minimum.reduceat(along, starts // 2) < -1
        outside |= np.maximum.reduceat(along, starts // 2) > limits[:, axis] + 1
    faults["outside"] += np.unique(indices[owner[outside]]).tolist()


def _say(columns: CocoColumns, rows: NDArray[np.int64], faults: dict[str, list[int]], use: Use) -> Iterator[Finding]:
    of = {name: columns.some_annotations(indices) for name, indices in faults.items() if indices}
    if "no mask" in of:
        first = repr(columns.segmentations[faults["no mask"][0]])[:80]
        yield Finding(f"{of['no mask']} whose segmentation is not {_ALLOWED}; the first: {first}. Convert them")
    if "numbers" in of:
        yield Finding(f"{of['numbers']} whose polygons hold something else than finite numbers. Correct them")
    if "size" in of:
        index = faults["size"][0]
        yield Finding(
            f"{of['size']} whose run lengths are of another size than the image: the first has size "
            f"{columns.segmentations[index]['size']}, its image [height, width] "
            f"{columns.image_sizes[rows[index]][::-1].tolist()}. Encode the masks at the image's size"
        )
    if "run lengths" in of:
        yield Finding(
            f"{of['run lengths']} whose run lengths cannot be decoded, or do not add up to height × width. "
            "Encode them anew with pycocotools.mask.encode"
        )
    if "fails" in of and use.scores_masks:
        yield Finding(
            f"{of['fails']} whose first polygon has fewer than three points: pycocotools would fail at the first "
            "evaluation. Remove those polygons, or annotations without any other"
        )
    if "empty" in of and use.masks:
        yield note(f"mmdet does not learn from {of['empty']}: no polygon with three points and x, y in pairs")
    if "short" in of and use.masks:
        yield note(f"mmdet drops polygons of {of['short']}: fewer than three points, or an odd number")
    if "outside" in of:
        yield note(f"polygons of {of['outside']} reach more than 1 px beyond the image")
