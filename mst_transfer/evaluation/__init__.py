"""Metrics. Importing this registers them."""

from mst_transfer.evaluation.coco_metric import CocoMetric

__all__ = ["CocoMetric"]
