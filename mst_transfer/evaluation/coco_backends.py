"""Matches detections to ground truth: by hotcoco, or by pycocotools where hotcoco cannot.

Both give the same arrays bit by bit, as ``tests/mst_transfer/evaluation`` shows; pycocotools summarises them.
"""

from __future__ import annotations

import contextlib
import io
from importlib.metadata import version
from typing import Any

import hotcoco
import numpy as np

from mst_transfer.evaluation.coco_detections import Detections

BACKENDS = ("auto", "hotcoco", "pycocotools")
_MAX_EXACT_ID = 2**53  # hotcoco reads ids from float64 columns


def choose_backend(wanted: str) -> str:
    """The library to use.

    Raises:
        ValueError: if there is none of that name.
    """
    if wanted not in BACKENDS:
        raise ValueError(f"backend={wanted!r}: it must be one of {BACKENDS}")
    return "hotcoco" if wanted == "auto" else wanted


def backend_version(name: str) -> str:
    """For example ``hotcoco 1.3.0``."""
    return f"{name} {version(name)}"


def why_unsuited(name: str, dataset: dict[str, Any]) -> str:
    """Why a backend cannot evaluate a dataset in COCO's format; empty if it can."""
    if name == "pycocotools":
        return ""
    ids = (item["id"] for part in ("images", "categories") for item in dataset[part])
    odd = next((value for value in ids if type(value) is not int or abs(value) >= _MAX_EXACT_ID), None)
    return "" if odd is None else f"id {odd!r} is not an integer below 2**53"


def load_ground_truth(name: str, coco: Any) -> Any:
    """A backend's own index of the annotations, numbered from 1.

    pycocotools takes a match with the annotation of id 0 for none, in mmdet's metric too: its figures of a file that
    counts from 0 are lower.

    Args:
        name: The backend.
        coco: A ``pycocotools.coco.COCO``; left as it is.
    """
    numbered = [
        {**annotation, "id": number} for number, annotation in enumerate(coco.dataset.get("annotations", ()), 1)
    ]
    dataset = {"info": {}, **coco.dataset, "licenses": [], "annotations": numbered}
    return hotcoco.COCO(dataset) if name == "hotcoco" else _indexed(type(coco)(), dataset)


def match(name: str, ground_truth: Any, detections: Detections, run: Any) -> None:
    """Matches detections to ground truth, and puts ``precision`` and ``recall`` into ``run.eval``.

    Args:
        name: A backend of ``BACKENDS`` other than ``auto``.
        ground_truth: What ``load_ground_truth`` returned for it.
        detections: What was found, perhaps nothing.
        run: A ``pycocotools.cocoeval.COCOeval``, whose ``params`` say what is compared and how. Their lists are sorted.
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
