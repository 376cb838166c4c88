"""ViT-Ti/16 on ImageNet-1k with the recipe of ViT-S/16. [ours]"""

_base_ = ["_base_/mst_vit.py", "_base_/runtime.py"]

model = dict(backbone=dict(arch="vit_tiny_patch16_224"))
