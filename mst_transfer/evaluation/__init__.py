"""Metrics. Importing this registers them."""

from mst_transfer.evaluation.coco_metric import CocoMetric
from mst_transfer.evaluation.image_counts import ImageCounts

__all__ = ["CocoMetric", "ImageCounts"]
