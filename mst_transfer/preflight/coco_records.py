"""Checks the records of a file in COCO's format, and counts what mmdet leaves out of them.

Each check looks at one idea and yields what it finds.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.datasets.coco_columns import CocoColumns
from mst_transfer.files.image_files import MAX_PIXELS
from mst_transfer.preflight.findings import Finding, note, shown

_ENOUGH_BOXES = 20  # before a habit of all boxes is called one


@dataclass(frozen=True)
class Use:
    """What a run does with a file."""

    masks: bool = False  # whether training reads instance masks
    scores: bool = False  # whether an evaluator reads the file
    scores_masks: bool = False  # whether it scores instance masks
    max_pixels: int = MAX_PIXELS  # that the header of an image may declare
    max_aspect_ratio: float = 100.0  # longer side by shorter side of an image


def check_records(columns: CocoColumns) -> Iterator[Finding]:
    """Checks ids, categories, images and boxes, which all else rests on."""
    for check in (_check_unique_ids, _check_categories, _check_images, _check_boxes):
        yield from check(columns)


def _check_unique_ids(columns: CocoColumns) -> Iterator[Finding]:
    """Ids are unique: mmdet stops at an annotation's id that comes twice, and merges images of one id."""
    for what, ids in (("image", columns.image_ids), ("annotation", columns.ids)):
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            twice = values[counts > 1].tolist()
            yield Finding(f"{what} ids that occur more than once: {shown(twice)}. Number the {what}s anew")


def category_faults(categories: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Says which categories lack a name, or have the name or id of another."""
    names, ids = ([category.get(key) for category in categories] for key in ("name", "id"))
    unnamed = [number for number, name in zip(ids, names, strict=True) if not isinstance(name, str) or not name]
    if unnamed:
        yield f"categories without a name: ids {shown(unnamed)}. Give each a name, a text"
    for what, values in (("name", names), ("id", ids)):
        twice = [value for value, count in Counter(map(str, values)).items() if count > 1]
        if twice:
            yield f"categories with the same {what}: {shown(twice)}; mmdet cannot tell them apart. Rename or merge them"


def _check_categories(columns: CocoColumns) -> Iterator[Finding]:
    """Categories have unique names and ids, and every annotation has one of them."""
    yield from map(Finding, category_faults(columns.categories))
    ids = [category.get("id") for category in columns.categories]
    known = np.array([number for number in ids if type(number) is int and abs(number) < 2**63], np.int64)
    if len(known) < len(ids):
        yield Finding(f"category ids must be whole numbers of at most 63 bits; they are {shown(ids)}")
    strangers = ~np.isin(columns.of_category, known)
    if strangers.any():
        yield Finding(
            f"{columns.some_annotations(strangers)} have a category_id that no category has: "
            f"{shown(np.unique(columns.of_category[strangers]).tolist())}; categories have {shown(ids)}. mmdet would "
            "leave them out silently. Correct the ids, or add the categories"
        )


def _check_images(columns: CocoColumns) -> Iterator[Finding]:
    """Every image has a file name and a size."""
    unnamed = np.array([not isinstance(name, str) or not name for name in columns.file_names], bool)
    if unnamed.any():
        yield Finding(f"{columns.some_images(unnamed)} without a file_name. Add it, relative to data_prefix.img")
    sizes = columns.image_sizes
    with np.errstate(invalid="ignore"):
        unsized = ~(np.isfinite(sizes) & (sizes >= 1) & (np.floor(sizes) == sizes)).all(axis=1)
    if unsized.any():
        yield Finding(
            f"{columns.some_images(unsized)} without a width and height in pixels (the first: "
            f"{sizes[unsized][0].tolist()}). Write the size of the file, in whole numbers"
        )
    twice = [name for name, count in Counter(map(str, columns.file_names)).items() if count > 1]
    if twice:
        yield note(f"{len(twice)} image files are named under several ids, e.g. {twice[0]}")


def _check_boxes(columns: CocoColumns) -> Iterator[Finding]:
    """Boxes are four finite numbers: x, y, width and height in pixels."""
    finite = np.isfinite(columns.boxes).all(axis=1)
    if not finite.all():
        yield Finding(
            f"{columns.some_annotations(~finite)} whose bbox is not 4 finite numbers [x, y, width, height] in pixels. "
            "Correct or remove them"
        )
    rows = columns.rows_of_images()
    usable = finite & (rows >= 0)
    boxes, sizes = columns.boxes[usable], columns.image_sizes[rows[usable]]
    if len(boxes) < _ENOUGH_BOXES:
        return
    beyond = (boxes[:, :2] + boxes[:, 2:] > sizes + 1).any(axis=1)
    if beyond.mean() > 0.5 and (boxes[:, 2:] > boxes[:, :2]).all():
        yield Finding(
            f"bbox looks like two corners, [x1, y1, x2, y2]: in {beyond.sum()} of {len(boxes)} annotations "
            f"x + width or y + height leaves the image, e.g. {boxes[beyond][0].tolist()}. COCO's bbox is "
            "[x, y, width, height]: subtract x1 and y1"
        )
    elif 0 < boxes[:, 2:].max() <= 1 and sizes.min() > 1:
        yield Finding(
            f"bbox looks like fractions of the image: no side is longer than {boxes[:, 2:].max():g}. COCO's bbox "
            "is in pixels: multiply by width and height"
        )
    elif beyond.any():
        yield note(f"{beyond.sum()} boxes reach more than 1 px beyond their image; mmdet clips them")


@dataclass(frozen=True)
class Selection:
    """What mmdet learns from. It leaves out the rest without a word."""

    instances: NDArray[np.bool_]  # [M], whether an annotation becomes an instance (crowds included)
    left_out: dict[str, NDArray[np.bool_]]  # reason → [M]; each annotation counts for the first reason that fits
    images: NDArray[np.bool_]  # [N], whether an image is used
    images_left_out: dict[str, NDArray[np.bool_]]  # reason → [N]


def select(
    columns: CocoColumns, chosen: Collection[int], filter_cfg: Mapping[str, Any] | None, test_mode: bool
) -> Selection:
    """Applies the rules of mmdet's ``CocoDataset.parse_data_info`` and ``filter_data`` to a file with unique ids.

    On the columns this takes a hundredth of the time that mmdet needs to build the dataset, and keeps the reasons.

    Args:
        chosen: category ids of the classes of the config.
        filter_cfg, test_mode: of the dataset; a test keeps all images.
    """
    rows = columns.rows_of_images()
    sizes = columns.image_sizes[rows] if len(columns.image_ids) else np.full((len(rows), 2), np.nan)
    corner, sides = columns.boxes[:, :2], columns.boxes[:, 2:]
    is_chosen = np.isin(columns.of_category, list(chosen))
    with np.errstate(invalid="ignore"):
        overlap = np.maximum(0, np.minimum(corner + sides, sizes) - np.maximum(corner, 0)).prod(axis=1)
        rules = {
            "their image is not in the file": rows < 0,
            "marked ignore": columns.ignored,
            "no box side of 1 px or more": (sides < 1).any(axis=1),
            "box outside the image": overlap == 0,
            "area of 0 or less": columns.areas <= 0,
            "category not among the classes": ~is_chosen,
        }
        left, left_out = np.ones(len(rows), bool), {}
        for reason, applies in rules.items():
            left_out[reason] = left & applies
            left &= ~applies
        filters = {} if test_mode else filter_cfg or {}
        annotated = np.zeros(len(columns.image_ids), bool)
        annotated[rows[(rows >= 0) & is_chosen]] = True  # also by an annotation that is itself left out
        empty = ~annotated & bool(filters.get("filter_empty_gt"))
        limit = filters.get("min_size", 0)
        small = ~empty & (columns.image_sizes.min(axis=1, initial=np.inf) < limit)
    reasons = {"without an instance of the classes": empty, f"a side below filter_cfg.min_size={limit} px": small}
    return Selection(left, left_out, ~empty & ~small, reasons)


def check_use(columns: CocoColumns, selection: Selection, use: Use, num_chosen: int) -> Iterator[Finding]:
    """Checks what a run with ``num_chosen`` classes reads of sound records, and notes what mmdet leaves out."""
    yield from _check_fields(columns, selection, use)
    with np.errstate(invalid="ignore"):
        sizes = columns.image_sizes
        long = sizes.max(axis=1, initial=0) > use.max_aspect_ratio * sizes.min(axis=1, initial=np.inf)
    if long.any():
        text = (
            f"{columns.some_images(long)} with one side more than {use.max_aspect_ratio:g} times the other: resizing "
            "would leave nothing of the shorter one. Cut them, take them out, or set image_checks.max_aspect_ratio"
        )
        yield Finding(text, stops=use.scores)
    for reason, rows in selection.left_out.items():
        if rows.any() and not (reason.startswith("category") and num_chosen == len(columns.categories)):
            yield note(f"mmdet leaves out {columns.some_annotations(rows)}: {reason}")
    for reason, rows in selection.images_left_out.items():
        if rows.any():
            yield note(f"mmdet leaves out {columns.some_images(rows)}: {reason}")


def _check_fields(columns: CocoColumns, selection: Selection, use: Use) -> Iterator[Finding]:
    """Entries that mmdet and pycocotools read without a default."""
    no_mask = np.array([not value for value in columns.segmentations], bool)
    not_learned = no_mask & selection.instances & use.masks
    no_area = np.isnan(columns.areas) & ~columns.ignored
    not_scored = no_mask & use.scores_masks & (not not_learned.any())
    for rows, text in (
        (no_area, "without an area; mmdet needs it. Add width × height of the box"),
        (columns.odd_crowd, "with an iscrowd that is neither 0 nor 1, without quotes. Correct it"),
        (~columns.has_crowd & use.scores, 'without iscrowd; the evaluation needs it. Add "iscrowd": 0'),
        (not_learned, "without a segmentation, and the model learns masks. Add it, or take a config without masks"),
        (not_scored, "without a segmentation, which the evaluation of masks needs. Add it, or evaluate metric='bbox'"),
    ):
        if rows.any():
            yield Finding(f"{columns.some_annotations(rows)} {text}")
