"""The sample scenes that `mst sample-data` draws: minutes on two CPU cores."""

_base_ = ["_base_/mst_vit.py", "_base_/runtime.py"]

model = dict(
    backbone=dict(
        arch="vit_tiny_patch16_224",
        img_size=96,
        patch_size=8,
        embed_dim=192,
        depth=6,
        num_heads=3,
        drop_path_rate=0.0,
    ),
    head=dict(out_dim=1024, hidden_dim=512, bottleneck_dim=128),
    decoder=dict(channels=(128, 64, 32)),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root="{{$MST_DATA_ROOT:data}}/sample/photos",
        num_local_crops=4,
        global_size=96,
        local_size=48,
        local_scale=(0.1, 0.4),
    ),
)
optim_wrapper = dict(dtype=None)
train_cfg = dict(
    max_epochs=10,
    schedule=dict(
        base_lr=2e-3,
        warmup_epochs=2,
        weight_decay_end=0.1,
        teacher_momentum=0.99,
        warmup_teacher_temp_epochs=0,
        teacher_temp=0.04,
    ),
)
default_hooks = dict(logger=dict(interval=10))
