"""Necks: token grids resized to the strides that FPN expects."""

from mst_transfer.models.necks.pyramid import TokenPyramid

__all__ = ["TokenPyramid"]
