"""Swin-S on ImageNet-1k, 100 epochs, with the recipe of ViT-S/16. [ours]

32 GPUs, or fewer with train_cfg.accumulation_steps=32/GPUs.
"""

_base_ = ["_base_/mst_vit.py", "_base_/runtime.py"]

model = dict(backbone=dict(arch="swin_small_patch4_window7_224"))
train_dataloader = dict(batch_size=32)
