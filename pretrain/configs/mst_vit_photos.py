"""Real photographs of three small sets together: `photos`, `coco_mini` and `camvid`, labels unused."""

_base_ = ["_base_/small.py"]

data_root = "{{$MST_DATA_ROOT:data}}"

model = dict(
    backbone=dict(img_size=96, patch_size=16, embed_dim=192, depth=6, num_heads=3),
    head=dict(out_dim=1024),
    decoder=dict(channels=(128, 64, 32, 16)),
)
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        data_root=[
            f"{data_root}/photos/train",
            f"{data_root}/coco_mini/train",
            f"{data_root}/camvid/leftImg8bit/train",
        ],
        global_size=96,
        local_size=48,
        global_scale=(0.4, 1.0),
        local_scale=(0.1, 0.4),
    ),
)
optim_wrapper = dict(dtype="auto")
train_cfg = dict(max_epochs=9, schedule=dict(base_lr=3e-3, warmup_epochs=2))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1))
