"""ViT-S/8 on ImageNet-1k; views and head of DINO's published ViT-S/8, which trained for 800 epochs.

64 GPUs, or fewer with train_cfg.accumulation_steps=64/GPUs.
"""

_base_ = ["_base_/mst_vit.py", "_base_/runtime.py"]

model = dict(backbone=dict(arch="vit_small_patch8_224"), head=dict(norm_last_layer=False))
train_dataloader = dict(batch_size=16, dataset=dict(num_local_crops=10))
