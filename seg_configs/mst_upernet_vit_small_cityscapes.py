# UPerNet, ViT-S/16, Cityscapes, 768x768, 80k steps at batch 8, AdamW 1e-4. No figure known; not measured here.
#   tools/dist_train.sh seg_configs/mst_upernet_vit_small_cityscapes.py 8 --amp
_base_ = [
    "_base_/upernet_vit_small.py",
    "_base_/cityscapes_768x768.py",
    "_base_/adamw_80k.py",
    "mmseg::_base_/default_runtime.py",
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
