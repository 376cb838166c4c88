# UPerNet, Swin-T, Cityscapes, 512x1024, 80k steps at batch 8, AdamW 6e-5. No figure known; not measured here.
#   tools/dist_train.sh seg_configs/mst_upernet_swin_tiny_cityscapes.py 8
_base_ = [
    "_base_/upernet_swin_tiny.py",
    "_base_/cityscapes_512x1024.py",
    "_base_/adamw_80k.py",
    "mmseg::_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
optim_wrapper = dict(
    paramwise_cfg=dict(layer_decay_rate=1.0),
    optimizer=dict(lr=6e-5, weight_decay=0.01),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
