"""Backbones: timm's ViT as token grids and as a feature pyramid."""

from mst_transfer.models.backbones.vit import TimmViT, TimmViTPyramid

__all__ = ["TimmViT", "TimmViTPyramid"]
