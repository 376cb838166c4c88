"""Which instances does mmdet learn from? It leaves out the others without a word.

The rules are those of ``CocoDataset.parse_data_info`` and ``filter_data`` of mmdet 3.3.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.datasets.coco_columns import CocoColumns


@dataclass(frozen=True)
class Selection:
    """What is left of a file.

    Attributes:
        instances: ``[M]`` whether an annotation becomes an instance (crowds included).
        left_out: reason → ``[M]`` annotations left out for it; each counts for the first reason that fits.
        images: ``[N]`` whether an image is used.
        images_left_out: reason → ``[N]``.
    """

    instances: NDArray[np.bool_]
    left_out: dict[str, NDArray[np.bool_]]
    images: NDArray[np.bool_]
    images_left_out: dict[str, NDArray[np.bool_]]


def select(
    columns: CocoColumns, chosen: Collection[int], filter_cfg: Mapping[str, Any] | None, test_mode: bool
) -> Selection:
    """Applies mmdet's rules to a file with unique ids.

    Args:
        columns: the file.
        chosen: category ids of the classes of the config.
        filter_cfg: of the dataset.
        test_mode: of the dataset; a test keeps all images.
    """
    rows = columns.rows_of_images()
    width, height = (columns.image_sizes[rows] if len(columns.image_ids) else np.full((len(rows), 2), np.nan)).T
    x, y, w, h = columns.boxes.T
    with np.errstate(invalid="ignore"):
        overlap = np.maximum(0, np.minimum(x + w, width) - np.maximum(x, 0)) * np.maximum(
            0, np.minimum(y + h, height) - np.maximum(y, 0)
        )
        rules = {
            "their image is not in the file": rows < 0,
            "marked ignore": columns.ignored,
            "no box side of 1 px or more": (w < 1) | (h < 1),
            "box outside the image": overlap == 0,
            "area of 0 or less": columns.areas <= 0,
            "category not among the classes": ~np.isin(columns.of_category, list(chosen)),
        }
    left = np.ones(len(rows), bool)
    left_out = {}
    for reason, applies in rules.items():
        left_out[reason] = left & applies
        left &= ~applies
    images, images_left_out = _select_images(columns, chosen, rows, None if test_mode else filter_cfg)
    return Selection(left, left_out, images, images_left_out)


def _select_images(
    columns: CocoColumns, chosen: Collection[int], rows: NDArray[np.int64], filter_cfg: Mapping[str, Any] | None
) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """An image with an annotation of a chosen class stays, even if that annotation itself was left out."""
    filter_cfg = filter_cfg or {}
    annotated = np.zeros(len(columns.image_ids), bool)
    annotated[rows[(rows >= 0) & np.isin(columns.of_category, list(chosen))]] = True
    empty = ~annotated if filter_cfg.get("filter_empty_gt") else np.zeros_like(annotated)
    limit = filter_cfg.get("min_size", 0)
    with np.errstate(invalid="ignore"):
        small = ~empty & (columns.image_sizes.min(axis=1, initial=np.inf) < limit)
    reasons = {"without an instance of the classes": empty, f"a side below filter_cfg.min_size={limit} px": small}
    return ~empty & ~small, reasons
