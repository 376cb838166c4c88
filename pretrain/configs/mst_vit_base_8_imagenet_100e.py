"""ViT-B/8 on ImageNet-1k; hyper-parameters of DINO's published ViT-B/8, which trained for 300 epochs.

128 GPUs, or fewer with train_cfg.accumulation_steps=128/GPUs; DINO took 176 with 6 images each.
"""

_base_ = ["mst_vit_base_16_imagenet_100e.py"]

model = dict(backbone=dict(arch="vit_base_patch8_224"))
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(clip_grad=3.0)
train_cfg = dict(schedule=dict(base_lr=5e-4, warmup_teacher_temp=0.03))
