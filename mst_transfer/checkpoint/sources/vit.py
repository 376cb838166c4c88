"""Naming schemes of Vision Transformers."""

from mst_transfer.checkpoint.sources.source import Source

VIT_SOURCES = (Source("timm, DINO, DeiT, MAE, MST", "patch_embed.proj.weight", dict),)
