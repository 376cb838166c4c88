"""Is a file in COCO's format sound? Each check looks at one idea and yields what it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.datasets.coco_columns import CocoColumns
from mst_transfer.files.image_files import MAX_PIXELS
from mst_transfer.preflight.coco_filter import Selection
from mst_transfer.preflight.findings import Finding, note, shown

_ENOUGH_BOXES = 20  # before a habit of all boxes is called one


@dataclass(frozen=True)
class Use:
    """What a run does with a file.

    Attributes:
        masks: whether training reads instance masks.
        scores: whether an evaluator reads the file.
        scores_masks: whether it scores instance masks.
        max_pixels: that the header of an image may declare.
        max_aspect_ratio: longer side by shorter side of an image.
    """

    masks: bool = False
    scores: bool = False
    scores_masks: bool = False
    max_pixels: int = MAX_PIXELS
    max_aspect_ratio: float = 100.0


def check_unique_ids(columns: CocoColumns) -> Iterator[Finding]:
    """Ids are unique: mmdet stops at an annotation's id that comes twice, and merges images of one id."""
    for what, ids in (("image", columns.image_ids), ("annotation", columns.ids)):
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            twice = values[counts > 1].tolist()
            yield Finding(f"{what} ids that occur more than once: {shown(twice)}. Number the {what}s anew")


def check_categories(columns: CocoColumns) -> Iterator[Finding]:
    """Categories have unique names and ids, and every annotation has one of them."""
    names = [category.get("name") for category in columns.categories]
    ids = [category.get("id") for category in columns.categories]
    unnamed = [number for number, name in zip(ids, names, strict=True) if not isinstance(name, str) or not name]
    if unnamed:
        yield Finding(f"categories without a name: ids {shown(unnamed)}. Give each a name")
    for what, values in (("name", names), ("id", ids)):
        twice = [value for value, count in Counter(map(str, values)).items() if count > 1]
        if twice:
            yield Finding(
                f"categories with the same {what}: {shown(twice)}; mmdet cannot tell them apart. Rename or merge them"
            )
    known = np.array([number for number in ids if type(number) is int and abs(number) < 2**63], np.int64)
    if len(known) < len(ids):
        yield Finding(f"category ids must be whole numbers of at most 63 bits; they are {shown(ids)}")
    strangers = ~np.isin(columns.of_category, known)
    if strangers.any():
        yield Finding(
            f"{_annotations(columns, strangers)} have a category_id that no category has: "
            f"{shown(np.unique(columns.of_category[strangers]).tolist())}; categories have {shown(ids)}. mmdet would "
            "leave them out silently. Correct the ids, or add the categories"
        )


def check_image_records(columns: CocoColumns) -> Iterator[Finding]:
    """Every image has a file name and a size."""
    unnamed = np.array([not isinstance(name, str) or not name for name in columns.file_names], bool)
    if unnamed.any():
        yield Finding(f"{_images(columns, unnamed)} without a file_name. Add it, relative to data_prefix.img")
    with np.errstate(invalid="ignore"):
        sizes = columns.image_sizes
        sized = (np.isfinite(sizes) & (sizes >= 1) & (np.floor(sizes) == sizes)).all(axis=1)
    if not sized.all():
        first = columns.image_sizes[~sized][0].tolist()
        yield Finding(
            f"{_images(columns, ~sized)} without a width and height in pixels (the first: {first}). "
            "Write the size of the file, in whole numbers"
        )
    twice = [name for name, count in Counter(map(str, columns.file_names)).items() if count > 1]
    if twice:
        yield note(f"{len(twice)} image files are named under several ids, e.g. {twice[0]}")


def check_boxes(columns: CocoColumns) -> Iterator[Finding]:
    """Boxes are four finite numbers: x, y, width and height in pixels."""
    finite = np.isfinite(columns.boxes).all(axis=1)
    if not finite.all():
        yield Finding(
            f"{_annotations(columns, ~finite)} whose bbox is not 4 finite numbers [x, y, width, height] in pixels. "
            "Correct or remove them"
        )
    rows = columns.rows_of_images()
    usable = finite & (rows >= 0)
    boxes = columns.boxes[usable]
    if len(boxes) < _ENOUGH_BOXES:
        return
    beyond = (boxes[:, :2] + boxes[:, 2:] > columns.image_sizes[rows[usable]] + 1).any(axis=1)
    if beyond.mean() > 0.5 and (boxes[:, 2:] > boxes[:, :2]).all():
        yield Finding(
            f"bbox looks like two corners, [x1, y1, x2, y2]: in {beyond.sum()} of {len(boxes)} annotations "
            f"x + width or y + height leaves the image, e.g. {boxes[beyond][0].tolist()}. COCO's bbox is "
            "[x, y, width, height]: subtract x1 and y1"
        )
    elif 0 < boxes[:, 2:].max() <= 1 and columns.image_sizes[rows[usable]].min() > 1:
        yield Finding(
            f"bbox looks like fractions of the image: no side is longer than {boxes[:, 2:].max():g}. COCO's bbox "
            "is in pixels: multiply by width and height"
        )
    elif beyond.any():
        yield note(f"{beyond.sum()} boxes reach more than 1 px beyond their image; mmdet clips them")


def check_fields(columns: CocoColumns, selection: Selection, use: Use) -> Iterator[Finding]:
    """Entries that mmdet and pycocotools read without a default."""
    no_area = np.isnan(columns.areas) & ~columns.ignored
    if no_area.any():
        yield Finding(
            f"{_annotations(columns, no_area)} without an area; mmdet needs it. Add width × height of the box"
        )
    if columns.odd_crowd.any():
        yield Finding(
            f"{_annotations(columns, columns.odd_crowd)} with an iscrowd that is neither 0 nor 1; any text would count "
            "as a crowd. Write 0 or 1, without quotes"
        )
    if use.scores and not columns.has_crowd.all():
        yield Finding(
            f'{_annotations(columns, ~columns.has_crowd)} without iscrowd; the evaluation needs it. Add "iscrowd": 0'
        )
    without = np.array([not value for value in columns.segmentations], bool)
    if use.masks and (without & selection.instances).any():
        yield Finding(
            f"{_annotations(columns, without & selection.instances)} without a segmentation, and the model learns "
            "masks. Add them, or take a config without a mask head"
        )
    elif use.scores_masks and without.any():
        yield Finding(
            f"{_annotations(columns, without)} without a segmentation, which the evaluation of masks needs. Add them, "
            "or evaluate metric='bbox'"
        )


def check_proportions(columns: CocoColumns, use: Use) -> Iterator[Finding]:
    """Images of which resizing leaves something on both sides."""
    with np.errstate(invalid="ignore"):
        long = columns.image_sizes.max(axis=1, initial=0) > use.max_aspect_ratio * columns.image_sizes.min(
            axis=1, initial=np.inf
        )
    if long.any():
        text = (
            f"{_images(columns, long)} with one side more than {use.max_aspect_ratio:g} times the other: resizing "
            "would leave nothing of the shorter one. Cut them, take them out, or set image_checks.max_aspect_ratio"
        )
        yield Finding(text, stops=use.scores)


def left_out_notes(columns: CocoColumns, selection: Selection, num_chosen: int) -> Iterator[Finding]:
    """What mmdet leaves out silently."""
    for reason, rows in selection.left_out.items():
        if rows.any() and not (reason.startswith("category") and num_chosen == len(columns.categories)):
            yield note(f"mmdet leaves out {_annotations(columns, rows)}: {reason}")
    for reason, rows in selection.images_left_out.items():
        if rows.any():
            yield note(f"mmdet leaves out {_images(columns, rows)}: {reason}")


RECORD_CHECKS: tuple[Callable[[CocoColumns], Iterator[Finding]], ...] = (
    check_unique_ids,
    check_categories,
    check_image_records,
    check_boxes,
)


def _annotations(columns: CocoColumns, rows: Any) -> str:
    return _counted("annotation", columns.ids, rows)


def _images(columns: CocoColumns, rows: Any) -> str:
    return _counted("image", columns.image_ids, rows)


def _counted(what: str, ids: NDArray[np.int64], rows: Any) -> str:
    found: list[Any] = ids[rows].tolist()
    some = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
    return f"{len(found)} of {len(ids)} {what}s (id {some})"
