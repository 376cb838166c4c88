"""COCO's twelve figures and the average precisions of single categories.

From the arrays of an evaluation, ``precision`` ``[T, R, K, A, M]`` and ``recall`` ``[T, K, A, M]``: T IoU
thresholds, R recall levels, K categories, A areas (all, small, medium, large), M numbers of detections an image;
-1 where there is nothing to find. The figures are those of ``pycocotools.cocoeval.COCOeval.summarize``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

METRIC_NAMES = (
    "mAP",
    "mAP_50",
    "mAP_75",
    "mAP_s",
    "mAP_m",
    "mAP_l",
    "AR@100",
    "AR@300",
    "AR@1000",
    "AR_s@1000",
    "AR_m@1000",
    "AR_l@1000",
)
AREAS = ("all", "small", "medium", "large")
MAX_DETS_OF_MAP = 100  # COCO's first figure counts this many detections an image, whatever the others count


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation accumulated.

    Attributes:
        precision: ``[T, R, K, A, M]``.
        recall: ``[T, K, A, M]``.
        category_ids: K ids in ascending order.
        iou_thresholds: ``[T]``.
        max_dets: M numbers of detections an image, ascending.
    """

    precision: np.ndarray
    recall: np.ndarray
    category_ids: Sequence[int]
    iou_thresholds: np.ndarray
    max_dets: Sequence[int]


def mean_of_found(values: np.ndarray, empty: float) -> float:
    """Mean of the values that are not -1; ``empty`` if there are none."""
    found = values[values > -1]
    return np.mean(found) if found.size else empty


def _chosen_thresholds(evaluation: Evaluation, threshold: float | None) -> np.ndarray:
    if threshold is None:
        return np.arange(len(evaluation.iou_thresholds))
    return np.flatnonzero(evaluation.iou_thresholds == threshold)


def average_precision(evaluation: Evaluation, threshold: float | None = None, area: int = 0, dets: int = -1) -> float:
    """Mean over thresholds (one of them if given), recall levels and categories; ``dets`` indexes ``max_dets``."""
    chosen = evaluation.precision[_chosen_thresholds(evaluation, threshold)]
    return mean_of_found(chosen[:, :, :, area, dets], -1.0)


def average_recall(evaluation: Evaluation, area: int = 0, dets: int = -1) -> float:
    """Mean over thresholds and categories."""
    return mean_of_found(evaluation.recall[:, :, area, dets], -1.0)


def summarize(evaluation: Evaluation) -> list[float]:
    """The twelve figures, in the order of ``METRIC_NAMES``; -1 where nothing is defined."""
    max_dets = list(evaluation.max_dets)
    counted = MAX_DETS_OF_MAP in max_dets
    return [
        average_precision(evaluation, dets=max_dets.index(MAX_DETS_OF_MAP)) if counted else -1.0,
        average_precision(evaluation, 0.5),
        average_precision(evaluation, 0.75),
        *(average_precision(evaluation, area=area) for area in (1, 2, 3)),
        *(average_recall(evaluation, dets=dets) for dets in (0, 1, 2)),
        *(average_recall(evaluation, area=area) for area in (1, 2, 3)),
    ]


def category_figures(evaluation: Evaluation, category_id: int) -> list[float]:
    """AP, AP50, AP75, AP small, medium and large of one category; NaN where nothing is defined."""
    column = evaluation.precision[:, :, list(evaluation.category_ids).index(category_id), :, -1]  # [T, R, A]
    at = [column[_chosen_thresholds(evaluation, threshold), :, 0] for threshold in (None, 0.5, 0.75)]
    return [mean_of_found(values, float("nan")) for values in (*at, *(column[:, :, area] for area in (1, 2, 3)))]


def describe(evaluation: Evaluation, figures: Sequence[float]) -> str:
    """The twelve lines that COCO's tools print."""
    thresholds = f"{evaluation.iou_thresholds[0]:.2f}:{evaluation.iou_thresholds[-1]:.2f}"
    most = evaluation.max_dets[-1]
    rows = [
        ("Precision", thresholds, "all", MAX_DETS_OF_MAP),
        ("Precision", "0.50", "all", most),
        ("Precision", "0.75", "all", most),
        *(("Precision", thresholds, area, most) for area in AREAS[1:]),
        *(("Recall", thresholds, "all", number) for number in evaluation.max_dets),
        *(("Recall", thresholds, area, most) for area in AREAS[1:]),
    ]
    return "\n".join(
        f" Average {kind:<9} @[ IoU={iou:<9} | area={area:>6} | maxDets={number:>4} ] = {figure:.3f}"
        for (kind, iou, area, number), figure in zip(rows, figures, strict=True)
    )
