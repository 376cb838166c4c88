"""What the runs of the small study share: 96 px photographs, a small ViT/16, one CPU core.

Leaves say which parts of MST are on. `{{$MST_DATA_ROOT:data}}/photos/train` holds the photographs; labels are unused.
"""

_base_ = ["mst_vit.py", "runtime.py"]

model = dict(
    backbone=dict(
        arch="vit_tiny_patch16_224",
        img_size=96,
        patch_size=16,
        embed_dim=128,
        depth=6,
        num_heads=4,
        drop_path_rate=0.0,
    ),
    head=dict(out_dim=1024, hidden_dim=1024, bottleneck_dim=256),
    masking=dict(mode="attention", num=2, p=1.0),  # of 36 patches; an eighth would leave next to nothing to restore
    decoder=dict(channels=(64, 32, 16, 16)),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    prefetch_factor=None,
    pin_memory=False,
    dataset=dict(
        data_root="{{$MST_DATA_ROOT:data}}/photos/train",
        num_local_crops=4,
        global_size=96,
        local_size=48,
        local_scale=(0.1, 0.4),
    ),
)
train_cfg = dict(
    max_epochs=25,
    schedule=dict(
        base_lr=4e-3,
        warmup_epochs=2,
        weight_decay_end=0.1,
        teacher_momentum=0.99,
        # Few images and prototypes: a sharper teacher, or all of its outputs stay uniform.
        warmup_teacher_temp=0.02,
        teacher_temp=0.02,
        warmup_teacher_temp_epochs=0,
    ),
)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=1))
