"""Are the instance masks of a file in COCO's format sound: polygons and run lengths?"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.datasets.coco_columns import CocoColumns
from mst_transfer.preflight.coco_checks import Use
from mst_transfer.preflight.coco_filter import Selection
from mst_transfer.preflight.findings import Finding, note
from mst_transfer.preflight.progress import Progress

CHUNK = 20_000  # annotations at a time: bounds the memory for coordinates
_FIRST_CHAR, _LAST_CHAR = 48, 48 + 63  # six bits a character: five of a number, one that says whether more follow
_MAX_GROUPS = 7  # of five bits: a number of 32 bits
_ALLOWED = "a list of polygons [[x1, y1, x2, y2, x3, y3, …], …] or run lengths {size: [height, width], counts: …}"


def check_segmentations(columns: CocoColumns, selection: Selection, use: Use) -> Iterator[Finding]:
    """Checks the masks that a run reads.

    mmdet drops polygons with an odd number of coordinates or fewer than three points, and does not learn from an
    instance of such polygons alone; pycocotools fails at a mask that begins with one, when the first evaluation is
    due.
    """
    if not (use.masks or use.scores_masks):
        return
    found = _Found()
    rows = columns.rows_of_images()
    progress = Progress(f"masks of {columns.path}", len(columns.ids))
    for start in range(0, len(columns.ids), CHUNK):
        part = slice(start, start + CHUNK)
        known = selection.instances[part] | (rows[part] >= 0 if use.scores_masks else False)
        indices = (np.flatnonzero(known) + start).tolist()
        found.look(columns, rows, indices)
        progress.update(start)
    found.decode(columns)
    yield from found.findings(columns, use)


def run_lengths(text: str) -> NDArray[np.int64] | None:
    """The numbers of COCO's compressed run lengths; None if the text is not made of such.

    The format is that of ``rleFrString`` in pycocotools: numbers of 5-bit groups, lowest first, with a sign; from the
    fourth on each is the difference to the last but one.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64)
    if not len(codes) or codes.min() < _FIRST_CHAR or codes.max() > _LAST_CHAR:
        return None
    codes -= _FIRST_CHAR
    is_last = (codes & 0x20) == 0
    if not is_last[-1]:
        return None
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= _MAX_GROUPS:
        return None
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = (codes[ends] & 0x10) != 0
    values[negative] -= 1 << (5 * (ends - starts + 1)[negative])
    for first in (1, 2):  # 1, 3, 5, … and 2, 4, 6, …: the first number stands alone
        values[first::2] = np.cumsum(values[first::2])
    return values


class _Found:
    """Rows of annotations by what is wrong with their mask."""

    def __init__(self) -> None:
        self.shape: list[int] = []  # neither polygons nor run lengths
        self.numbers: list[int] = []  # coordinates that are not finite numbers
        self.short: list[int] = []  # some polygon is no polygon
        self.empty: list[int] = []  # no polygon is one
        self.fails: list[int] = []  # the first polygon has fewer than three points: pycocotools fails
        self.size: list[int] = []  # run lengths of another size than the image
        self.counts: list[int] = []  # run lengths that do not add up, or cannot be decoded
        self.outside: list[int] = []  # polygons that leave the image
        self.run_lengths: list[int] = []  # compressed ones

    def look(self, columns: CocoColumns, rows: NDArray[np.int64], indices: Sequence[int]) -> None:
        """Sorts the masks of some annotations."""
        polygons: list[int] = []
        for index in indices:
            value = columns.segmentations[index]
            if not value:
                continue  # judged by check_fields
            if isinstance(value, list):
                if all(isinstance(polygon, list) for polygon in value):
                    polygons.append(index)
                else:
                    self.shape.append(index)
            else:
                self._look_at_run_lengths(index, value, columns.image_sizes[rows[index]])
        if polygons:
            self._look_at_polygons(columns, rows, np.array(polygons))

    def _look_at_run_lengths(self, index: int, value: Any, image_size: NDArray[np.float64]) -> None:
        size = value.get("size") if isinstance(value, dict) else None
        counts = value.get("counts") if isinstance(value, dict) else None
        if not (isinstance(size, list) and isinstance(counts, list | str) and counts):
            self.shape.append(index)
        elif size != image_size[::-1].tolist():
            self.size.append(index)
        elif isinstance(counts, str):
            self.run_lengths.append(index)
        elif any(type(count) is not int or count < 0 for count in counts) or sum(counts) != size[0] * size[1]:
            self.counts.append(index)

    def _look_at_polygons(self, columns: CocoColumns, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> None:
        values = [columns.segmentations[index] for index in indices]
        number = np.fromiter(map(len, values), np.int64, len(values))
        owner = np.repeat(np.arange(len(values)), number)
        polygons = list(chain.from_iterable(values))
        lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
        good = (lengths >= 6) & (lengths % 2 == 0)
        if not good.all():
            num_good = np.bincount(owner[good], minlength=len(values))
            self.short += indices[(num_good < number) & (num_good > 0)].tolist()
            self.empty += indices[num_good == 0].tolist()
            starts = np.concatenate([[0], np.cumsum(number)[:-1]])
            self.fails += indices[lengths[starts] < 5].tolist()
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
            self.numbers += np.unique(indices[owner[wrong]]).tolist()
            return
        numbers = np.frombuffer(coordinates)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        finite = np.logical_and.reduceat(np.isfinite(numbers), starts)
        self.numbers += np.unique(indices[owner[~finite]]).tolist()
        half = starts // 2
        limits = columns.image_sizes[rows[indices[owner]]]
        outside = np.zeros(len(starts), bool)
        for axis in (0, 1):
            along = numbers[axis::2]
            outside |= np.minimum.reduceat(along, half) < -1
            outside |= np.maximum.reduceat(along, half) > limits[:, axis] + 1
        self.outside += np.unique(indices[owner[outside]]).tolist()

    def decode(self, columns: CocoColumns) -> None:
        """Adds up compressed run lengths: pycocotools would write beyond the mask, or leave a part of it undefined."""
        for index in self.run_lengths:
            value = columns.segmentations[index]
            counts = run_lengths(value["counts"])
            if counts is None or counts.min() < 0 or counts.sum() != value["size"][0] * value["size"][1]:
                self.counts.append(index)

    def findings(self, columns: CocoColumns, use: Use) -> Iterator[Finding]:
        """In words."""

        def of(rows: Sequence[int]) -> str:
            some = ", ".join(str(columns.ids[row]) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
            return f"{len(rows)} of {len(columns.ids)} annotations (id {some})"

        if self.shape:
            first = repr(columns.segmentations[self.shape[0]])[:80]
            yield Finding(f"{of(self.shape)} whose segmentation is not {_ALLOWED}; the first: {first}. Convert them")
        if self.numbers:
            yield Finding(f"{of(self.numbers)} whose polygons hold something else than finite numbers. Correct them")
        if self.size:
            first = columns.segmentations[self.size[0]]["size"]
            size = columns.image_sizes[columns.rows_of_images()[self.size[0]]][::-1].tolist()
            yield Finding(
                f"{of(self.size)} whose run lengths are of another size than the image: the first has size {first}, "
                f"its image [height, width] {size}. Encode the masks at the image's size"
            )
        if self.counts:
            yield Finding(
                f"{of(self.counts)} whose run lengths cannot be decoded, or do not add up to height × width. "
                "Encode them anew with pycocotools.mask.encode"
            )
        broken = self.fails if use.scores_masks else []
        if broken:
            yield Finding(
                f"{of(broken)} whose first polygon has fewer than three points: pycocotools would fail at the first "
                "evaluation. Remove those polygons, or annotations without any other"
            )
        if self.empty and use.masks:
            yield note(f"mmdet does not learn from {of(self.empty)}: no polygon with three points and x, y in pairs")
        if self.short and use.masks:
            yield note(f"mmdet drops polygons of {of(self.short)}: fewer than three points, or an odd number")
        if self.outside:
            yield note(f"polygons of {of(self.outside)} reach more than 1 px beyond the image")
