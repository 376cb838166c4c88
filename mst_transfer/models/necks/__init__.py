"""Necks: token grids resized to the strides that detectors expect."""

from mst_transfer.models.necks.pyramid import TokenPyramid
from mst_transfer.models.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ["SimpleFeaturePyramid", "TokenPyramid"]
