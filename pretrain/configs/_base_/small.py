"""Small images and a narrow ViT on CPU cores; leaves name the images and fit sizes and length to them."""

_base_ = ["mst_vit.py", "runtime.py"]

model = dict(
    backbone=dict(
        arch="vit_tiny_patch16_224",
        img_size=64,
        patch_size=8,
        embed_dim=128,
        depth=4,
        num_heads=4,
        drop_path_rate=0.0,
    ),
    head=dict(out_dim=256, hidden_dim=512, bottleneck_dim=128),
    decoder=dict(channels=(64, 32, 16)),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    dataset=dict(
        data_root="{{$MST_DATA_ROOT:data}}/sample/photos",
        num_local_crops=4,
        global_size=64,
        local_size=32,
        global_scale=(0.2, 0.8),  # of 128 px scenes: about the resolution that the heads see
        local_scale=(0.05, 0.2),
    ),
)
optim_wrapper = dict(dtype=None)
train_cfg = dict(
    max_epochs=50,
    schedule=dict(
        base_lr=4e-3,
        warmup_epochs=4,
        weight_decay_end=0.1,
        teacher_momentum=0.99,
        # Few images and prototypes: a sharper teacher, or all of its outputs stay uniform.
        warmup_teacher_temp=0.02,
        teacher_temp=0.02,
        warmup_teacher_temp_epochs=0,
    ),
)
default_hooks = dict(logger=dict(interval=18), checkpoint=dict(interval=5))
