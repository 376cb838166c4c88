"""Ground truth in COCO's format from the samples of a dataset, where there is no annotation file."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any


def coco_from_samples(samples: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """A dataset in COCO's format, as mmdet's ``CocoMetric`` makes it: a label is its category's id.

    Args:
        samples: One mapping an image: ``img_id`` (its place if absent), ``width``, ``height`` and ``anns``, each with
            ``bbox`` (x1, y1, x2, y2 in pixels), ``bbox_label`` and perhaps ``ignore_flag`` and ``mask`` (polygons or
            run lengths).
        classes: The names of the classes.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, sample in enumerate(samples):
        image_id = sample.get("img_id", index)
        images.append({"id": image_id, "width": sample["width"], "height": sample["height"], "file_name": ""})
        for instance in sample["anns"]:
            annotations.append(_annotation(instance, image_id, len(annotations) + 1))
    return {
        "info": {"date_created": str(datetime.datetime.now()), "description": "ground truth of the samples"},
        "images": images,
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
        "licenses": [],
        "annotations": annotations,
    }


def _annotation(instance: Mapping[str, Any], image_id: Any, number: int) -> dict[str, Any]:
    left, top, right, bottom = (float(x) for x in instance["bbox"])
    width, height = right - left, bottom - top
    annotation = {
        "id": number,
        "image_id": image_id,
        "bbox": [left, top, width, height],
        "iscrowd": int(instance.get("ignore_flag", 0)),
        "category_id": int(instance["bbox_label"]),
        "area": width * height,
    }
    mask = instance.get("mask")
    if mask:
        if isinstance(mask, dict) and isinstance(mask["counts"], bytes):
            mask = {**mask, "counts": mask["counts"].decode()}
        annotation["segmentation"] = mask
    return annotation
