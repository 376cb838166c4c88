"""COCO's box and mask metric inside mmdet's loop: ours against mmdet's on pycocotools.

    python -m benchmarks coco_evaluation

``process`` for each image and ``evaluate`` at the end, on synthetic ground truth of val2017's size (80 categories,
7.3 instances an image) and 100 detections an image; masks are boolean tensors of 480x640 pixels, drawn outside the
time. Figures must agree before times count. Rounds take turns in processor time, on one thread.
"""

import contextlib
import io
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAYON_NUM_THREADS", "1")  # of hotcoco

import cv2
import numpy as np
import torch
from mmengine.logging import MMLogger

from benchmarks.measure import Row, compare, processor_clock, take_turns
from mst_transfer.evaluation import CocoMetric

HEIGHT, WIDTH, NUM_CATEGORIES, NUM_DETECTIONS = 480, 640, 80, 100
CLASSES = [f"class {index}" for index in range(NUM_CATEGORIES)]
PEER, OURS = "mmdet, pycocotools", "mst_transfer.CocoMetric"


def ground_truth(num_images: int, rng: np.random.Generator) -> dict[str, Any]:
    """Ellipses as polygons, in COCO's format."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2 + 0.5
    annotations = []
    for image_id in range(num_images):
        for _ in range(rng.poisson(7.3)):
            size = np.exp(rng.normal(4.0, 1.0, 2)).clip(4, 400)
            corner = rng.random(2) * (np.array([WIDTH, HEIGHT]) - size)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.integers(NUM_CATEGORIES)),
                    "bbox": [*corner.tolist(), *size.tolist()],
                    "area": float(size.prod() * np.pi / 4),
                    "iscrowd": 0,
                    "segmentation": [(corner + circle * size).round(2).ravel().tolist()],
                }
            )
    return {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(num_images)],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES)],
    }


def detections(truth: dict[str, Any], rng: np.random.Generator) -> list[dict[str, torch.Tensor]]:
    """For each image boxes near its instances, the best scores first."""
    boxes_of: list[list[tuple[list[float], int]]] = [[] for _ in truth["images"]]
    for annotation in truth["annotations"]:
        boxes_of[annotation["image_id"]].append((annotation["bbox"], annotation["category_id"]))
    found = []
    for instances in boxes_of:
        instances = instances or [([10.0, 10.0, 50.0, 50.0], 0)]
        chosen = rng.integers(len(instances), size=NUM_DETECTIONS)
        boxes = np.array([instances[index][0] for index in chosen])
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        corners += rng.normal(0, 0.1, corners.shape) * np.tile(boxes[:, 2:], 2)
        corners = np.concatenate([corners.reshape(-1, 2, 2).min(1), corners.reshape(-1, 2, 2).max(1)], axis=1)
        labels = np.array([instances[index][1] for index in chosen])
        strange = rng.random(NUM_DETECTIONS) < 0.4
        labels[strange] = rng.integers(NUM_CATEGORIES, size=strange.sum())
        found.append(
            {
                "bboxes": torch.tensor(corners.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT]), dtype=torch.float32),
                "scores": torch.tensor(np.sort(rng.random(NUM_DETECTIONS))[::-1].copy(), dtype=torch.float32),
                "labels": torch.tensor(labels),
            }
        )
    return found


def draw_masks(boxes: torch.Tensor, out: np.ndarray) -> torch.Tensor:
    """Ellipses within boxes as bool tensors, in a buffer ``[N, H, W]``, uint8."""
    out.fill(0)
    for mask, (left, top, right, bottom) in zip(out, boxes.tolist(), strict=True):
        centre = (int((left + right) / 2), int((top + bottom) / 2))
        axes = (max(int((right - left) / 2), 1), max(int((bottom - top) / 2), 1))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    return torch.from_numpy(out.view(bool))


def loop(cls: type, ann_file: Path, metric: list[str], found: list[dict], figures: dict[str, Any]) -> float:
    """Seconds of processor time of one evaluation; its figures go into ``figures[cls.__module__]``."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = cls(str(ann_file), metric=metric)
        evaluator.dataset_meta = {"classes": CLASSES}
        buffer = np.empty((NUM_DETECTIONS, HEIGHT, WIDTH), dtype=np.uint8)
        seconds = 0.0
        for image_id, predicted in enumerate(found):
            predicted = dict(predicted)
            if "segm" in metric:
                predicted["masks"] = draw_masks(predicted["bboxes"], buffer)
            sample = {"pred_instances": predicted, "img_id": image_id, "ori_shape": (HEIGHT, WIDTH)}
            start = time.process_time()
            evaluator.process({}, [sample])
            seconds += time.process_time() - start
        start = time.process_time()
        figures[cls.__module__] = evaluator.evaluate(len(found))
        return seconds + time.process_time() - start


def measure(metric: list[str], num_images: int, rounds: int, goal: float) -> Row:
    """One comparison.

    Raises:
        RuntimeError: the figures differ.
    """
    from mmdet.evaluation.metrics import (
        CocoMetric as MMDetCocoMetric,
    )  # after mst_transfer, which gives it its operators

    rng = np.random.default_rng(0)
    truth = ground_truth(num_images, rng)
    found = detections(truth, rng)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        path.write_text(json.dumps(truth), encoding="utf-8")
        works: dict[str, Callable[[], object]] = {
            PEER: lambda: loop(MMDetCocoMetric, path, metric, found, figures),
            OURS: lambda: loop(CocoMetric, path, metric, found, figures),
        }
        times = take_turns(works, rounds, clock=lambda work: float(work()), warm_up=0)  # type: ignore[arg-type]
    theirs, ours = figures.values()
    if theirs != ours:
        raise RuntimeError(f"the figures of {metric} differ: {theirs} and {ours}")
    work = f"COCO {' + '.join(metric)}, {num_images} images, {NUM_DETECTIONS} detections each"
    note = "processor time, equal figures"
    if "segm" in metric:
        masks = np.zeros((NUM_DETECTIONS * HEIGHT, WIDTH), dtype=np.uint8)
        (seconds,) = take_turns({"": lambda: cv2.norm(masks, cv2.NORM_L1)}, 5, processor_clock).values()
        note += (
            f"; {masks.size / 1e6:.0f} MB of masks an image are read to see that none stands out of its box: "
            f"{statistics.median(seconds) * 1e3:.2f} of {statistics.median(times[OURS]) / num_images * 1e3:.2f} ms"
        )
    return compare(work, (PEER, times[PEER]), (OURS, times[OURS]), goal=goal, note=note)


def run(quick: bool) -> list[Row]:
    """Boxes, masks, and both as a Mask R-CNN evaluates them."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    cv2.setNumThreads(0)
    try:
        rounds = 1 if quick else 3
        return [
            measure(["bbox"], 50 if quick else 5000, rounds, goal=40),
            measure(["segm"], 10 if quick else 500, rounds, goal=15),
            measure(["bbox", "segm"], 10 if quick else 500, rounds, goal=15),
        ]
    finally:
        logger.setLevel(level)
