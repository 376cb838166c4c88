"""Backbones: timm's ViT as token grids and as a feature pyramid, timm's Swin as the maps of its stages."""

from mst_transfer.models.backbones.swin import TimmSwin
from mst_transfer.models.backbones.vit import TimmViT, TimmViTPyramid

__all__ = ["TimmSwin", "TimmViT", "TimmViTPyramid"]
