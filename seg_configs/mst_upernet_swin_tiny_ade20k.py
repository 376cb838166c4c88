# UPerNet, Swin-T, ADE20K, 512x512, 160k steps at batch 16, AdamW 6e-5. MoBY's table: 44.06 mIoU (45.58 multi-
# scale) with MoBY's weights, 44.51 (45.81) with supervised ones (not measured here).
#   tools/dist_train.sh seg_configs/mst_upernet_swin_tiny_ade20k.py 8
_base_ = [
    "_base_/upernet_swin_tiny.py",
    "_base_/ade20k_512x512.py",
    "_base_/adamw_160k.py",
    "mmseg::_base_/default_runtime.py",
]
model = dict(decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=150))
optim_wrapper = dict(
    paramwise_cfg=dict(layer_decay_rate=1.0),
    optimizer=dict(lr=6e-5, weight_decay=0.01),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
