"""Joins predictions to columns and matches them to ground truth: by hotcoco, or by pycocotools where it cannot.

Both give the same arrays bit by bit, as ``tests/mst_transfer/evaluation`` shows; pycocotools summarises them.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

BACKENDS = ("hotcoco", "pycocotools")
_MAX_EXACT_ID = 2**53  # hotcoco reads ids from float64 columns


@dataclass(frozen=True)
class Detections:
    """N detections in the order of the results, which is the order of ties."""

    image_ids: np.ndarray  # [N], as the annotation file names images (integers or strings)
    category_ids: np.ndarray  # [N], int64
    boxes: np.ndarray  # [N, 4], float64, left, top, width, height in pixels
    scores: np.ndarray  # [N], float64
    masks: list[dict] | None = None  # N compressed run lengths {"size": [H, W], "counts": bytes or str}

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
        results: One mapping an image: ``img_id``, ``bboxes`` ``[n, 4]`` as x1, y1, x2, y2, ``labels`` ``[n]``,
            ``scores`` ``[n]``, for masks ``masks`` (n run lengths) and perhaps ``mask_scores`` ``[n]``.
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
    image_ids = [result["img_id"] for result in results]
    corners = np.concatenate([_rows(result["bboxes"], 4) for result in results]).astype(np.float64)
    labels = np.concatenate([_rows(result["labels"]) for result in results]).astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= len(category_ids))]
    if wrong.size:
        raise ValueError(
            f"label {wrong[0]} is predicted, but only {len(category_ids)} of the dataset's classes are categories of "
            "the annotation file: set the heads' num_classes and the dataset's metainfo.classes to its categories"
        )
    key = "mask_scores" if with_masks else "scores"
    scores = [_rows(result.get(key, result["scores"])) for result in results]
    return Detections(
        image_ids=np.repeat(np.asarray(image_ids), lengths),
        category_ids=np.asarray(category_ids, dtype=np.int64)[labels],
        boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
        scores=np.concatenate(scores).astype(np.float64),
        masks=[mask for result in results for mask in result["masks"]] if with_masks else None,
    )


def _rows(values: Any, *shape: int) -> np.ndarray:
    return np.asarray(values).reshape(-1, *shape)


def why_unsuited(name: str, dataset: dict[str, Any]) -> str:
    """Why a backend cannot evaluate a dataset in COCO's format; empty if it can."""
    if name == "pycocotools":
        return ""
    ids = (item["id"] for part in ("images", "categories") for item in dataset[part])
    odd = next((value for value in ids if type(value) is not int or abs(value) >= _MAX_EXACT_ID), None)
    return "" if odd is None else f"id {odd!r} is not an integer below 2**53"


def load_ground_truth(name: str, coco: Any) -> Any:
    """A backend's own index of the annotations of a ``pycocotools.coco.COCO``, numbered from 1.

    pycocotools takes a match with the annotation of id 0 for none, in mmdet's metric too: its figures of a file that
    counts from 0 are lower.
    """
    numbered = [
        {**annotation, "id": number} for number, annotation in enumerate(coco.dataset.get("annotations", ()), 1)
    ]
    dataset = {"info": {}, **coco.dataset, "licenses": [], "annotations": numbered}
    return hotcoco.COCO(dataset) if name == "hotcoco" else _indexed(type(coco)(), dataset)


def match(name: str, ground_truth: Any, detections: Detections, run: Any) -> None:
    """Matches detections to ground truth, and puts ``precision`` and ``recall`` into ``run.eval``.

    ``run``: a ``pycocotools.cocoeval.COCOeval``, whose ``params`` say what is compared and how; their lists get sorted.
    """
    params = run.params
    params.imgIds, params.catIds = sorted(set(params.imgIds)), sorted(params.catIds)
    params.maxDets = sorted(params.maxDets)
    (_match_by_hotcoco if name == "hotcoco" else _match_by_pycocotools)(ground_truth, detections, run)


def _match_by_hotcoco(ground_truth: Any, detections: Detections, run: Any) -> None:
    columns = np.empty((len(detections), 7))
    columns[:, 0], columns[:, 1:5] = detections.image_ids, detections.boxes
    columns[:, 5], columns[:, 6] = detections.scores, detections.category_ids
    if detections.masks is None or not len(detections):
        found = ground_truth.load_res(columns)
    else:
        found = ground_truth.load_res(columns, segmentation=detections.masks)
        ids = np.arange(1, len(detections) + 1)
        found.update_anns(ids=ids, area=hotcoco.mask.area(detections.masks))  # for now they are the boxes'
    quick: Any = hotcoco.COCOeval(ground_truth, found, run.params.iouType)
    quick.params.img_ids = run.params.imgIds
    quick.params.cat_ids = run.params.catIds
    quick.params.iou_thrs = run.params.iouThrs.tolist()
    quick.params.max_dets = run.params.maxDets
    quick.params.use_cats = bool(run.params.useCats)
    quick.evaluate()
    quick.accumulate()
    run.eval = {name: np.asarray(quick.eval[name]) for name in ("precision", "recall")}


def _match_by_pycocotools(ground_truth: Any, detections: Detections, run: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        if len(detections):
            found = ground_truth.loadRes(detections.as_results())
        else:  # loadRes takes no empty list
            found = _indexed(type(ground_truth)(), {**ground_truth.dataset, "annotations": []})
        run.cocoGt, run.cocoDt = ground_truth, found
        run.evaluate()
        run.accumulate()


def _indexed(coco: Any, dataset: dict[str, Any]) -> Any:
    """An empty ``COCO`` of pycocotools with a dataset in it."""
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
