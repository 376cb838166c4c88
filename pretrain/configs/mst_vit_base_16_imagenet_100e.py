"""ViT-B/16 on ImageNet-1k; hyper-parameters of DINO's published ViT-B/16, which trained for 400 epochs.

32 GPUs, or fewer with train_cfg.accumulation_steps=32/GPUs.
"""

_base_ = ["_base_/mst_vit.py", "_base_/runtime.py"]

model = dict(backbone=dict(arch="vit_base_patch16_224"))
train_dataloader = dict(
    batch_size=32,
    dataset=dict(num_local_crops=10, global_scale=(0.25, 1.0), local_scale=(0.05, 0.25)),
)
optim_wrapper = dict(clip_grad=0.3)
train_cfg = dict(schedule=dict(base_lr=7.5e-4, min_lr=2e-6, warmup_teacher_temp_epochs=50, freeze_last_layer_epochs=3))
