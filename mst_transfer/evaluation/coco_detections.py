"""Predictions of a whole dataset as columns, in the units of COCO's results files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Detections:
    """N detections in the order of the results, which is the order of ties.

    Attributes:
        image_ids: ``[N]``, as the annotation file names images (integers or strings).
        category_ids: ``[N]``, int64.
        boxes: ``[N, 4]``, float64, left, top, width, height in pixels.
        scores: ``[N]``, float64.
        masks: N compressed run lengths ``{"size": [H, W], "counts": bytes or str}``, or None.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    masks: list[dict] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def as_results(self) -> list[dict[str, Any]]:
        """What ``COCO.loadRes`` takes: with masks no boxes, so that areas are the masks'."""
        columns = zip(self.image_ids.tolist(), self.category_ids.tolist(), self.scores.tolist(), strict=True)
        shapes, name = (self.boxes.tolist(), "bbox") if self.masks is None else (self.masks, "segmentation")
        return [
            {"image_id": image, "category_id": category, "score": score, name: shape}
            for (image, category, score), shape in zip(columns, shapes, strict=True)
        ]


def collect_detections(results: Sequence[Mapping[str, Any]], category_ids: Sequence[int], iou_type: str) -> Detections:
    """Joins the predictions of all images.

    Args:
        results: One mapping an image: ``img_id`` (its place in the sequence if absent), ``bboxes`` ``[n, 4]`` as
            x1, y1, x2, y2, ``labels`` ``[n]``, ``scores`` ``[n]``, for masks ``masks`` (n run lengths) and perhaps
            ``mask_scores`` ``[n]``.
        category_ids: Label → category id.
        iou_type: ``bbox`` or ``segm``.

    Raises:
        KeyError: if masks are asked for and the results have none.
        ValueError: if a label has no category.
    """
    with_masks = iou_type == "segm"
    if with_masks and "masks" not in results[0]:
        raise KeyError("segm is not in results: the model predicts no masks; take it out of the evaluator's metric")
    lengths = [len(result["labels"]) for result in results]
    image_ids = [result.get("img_id", index) for index, result in enumerate(results)]
    corners = np.concatenate([_rows(result["bboxes"], 4) for result in results]).astype(np.float64)
    labels = np.concatenate([_rows(result["labels"]) for result in results]).astype(np.int64)
    _check_labels(labels, len(category_ids))
    scores = [
        _rows(result.get("mask_scores", result["scores"]) if with_masks else result["scores"]) for result in results
    ]
    return Detections(
        image_ids=np.repeat(np.asarray(image_ids), lengths),
        category_ids=np.asarray(category_ids, dtype=np.int64)[labels],
        boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
        scores=np.concatenate(scores).astype(np.float64),
        masks=[mask for result in results for mask in result["masks"]] if with_masks else None,
    )


def _rows(values: Any, *shape: int) -> np.ndarray:
    return np.asarray(values).reshape(-1, *shape)


def _check_labels(labels: np.ndarray, num_categories: int) -> None:
    wrong = labels[(labels < 0) | (labels >= num_categories)]
    if wrong.size:
        raise ValueError(
            f"label {wrong[0]} is predicted, but only {num_categories} of the dataset's classes are categories of the "
            "annotation file: set the heads' num_classes and the dataset's metainfo.classes to its categories"
        )
