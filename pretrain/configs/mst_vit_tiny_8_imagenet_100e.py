"""ViT-Ti/8 on ImageNet-1k with the recipe of ViT-S/8. [ours]

64 GPUs, or fewer with train_cfg.accumulation_steps=64/GPUs.
"""

_base_ = ["mst_vit_small_8_imagenet_100e.py"]

model = dict(backbone=dict(arch="vit_tiny_patch16_224", patch_size=8))
