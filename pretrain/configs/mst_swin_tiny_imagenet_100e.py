"""Swin-T on ImageNet-1k, 100 epochs, with the recipe of ViT-S/16. [ours]

A mask cell is one last-stage token, 32 x 32 px: 49 cells a global view, 6 of them hidden.
"""

_base_ = ["_base_/mst_vit.py", "_base_/runtime.py"]

model = dict(backbone=dict(arch="swin_tiny_patch4_window7_224"))
