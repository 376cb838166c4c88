"""Shared by the runs of the small study: 96 px photographs, a small ViT/16, one CPU core; recipe of the sample config.

Leaves say which parts of MST are on. `{{$MST_DATA_ROOT:data}}/photos/train` holds the photographs; labels are unused.
"""

_base_ = ["small.py"]

model = dict(
    backbone=dict(img_size=96, patch_size=16, depth=6),
    head=dict(out_dim=1024, hidden_dim=1024, bottleneck_dim=256),
    masking=dict(num=2),  # of 36 patches; an eighth would leave next to nothing to restore
    decoder=dict(channels=(64, 32, 16, 16)),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        data_root="{{$MST_DATA_ROOT:data}}/photos/train",
        global_size=96,
        local_size=48,
        global_scale=(0.4, 1.0),
        local_scale=(0.1, 0.4),
    ),
)
optim_wrapper = dict(dtype=None)  # float32: the same arithmetic on every processor, fast bfloat16 or not
train_cfg = dict(max_epochs=25, schedule=dict(warmup_epochs=2))
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=1))
