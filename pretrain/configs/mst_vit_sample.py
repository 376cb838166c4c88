"""The sample photos that `mst sample-data` draws: five to nine minutes on two cores of an AMD EPYC (Zen 4)."""

_base_ = ["_base_/small.py"]

model = dict(
    backbone=dict(img_size=48, embed_dim=96, num_heads=3),
    head=dict(use_bn=True),  # the photos look much alike to random weights
    masking=dict(num=2),  # of 36 patches
    restoring_weight=0.1,
)
train_dataloader = dict(
    dataset=dict(
        data_root="{{$MST_DATA_ROOT:data}}/sample/photos",
        global_size=48,
        local_size=24,
        global_scale=(0.15, 0.5),
        local_scale=(0.04, 0.15),
        hue=0.5,
        grayscale_prob=0.4,
        blur_sigma=(0.1, 0.5),  # a fifth of DINO's, as the crops are: more would hide the patterns
    ),
)
train_cfg = dict(
    max_epochs=26,
    schedule=dict(base_lr=8e-3, warmup_epochs=2, teacher_momentum=0.99),
)
optim_wrapper = dict(dtype="auto")  # bfloat16 takes 0.6 of the time of float32 on a Zen 4
default_hooks = dict(logger=dict(interval=31), checkpoint=dict(interval=10))
