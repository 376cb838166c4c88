# SETR-naive, ViT-S/16, Cityscapes, 768x768, 80k steps at batch 8, SGD 0.01. mmseg's model zoo has 78.1 mIoU
# (80.22 multi-scale) for a supervised ViT-L (not measured here).
#   tools/dist_train.sh seg_configs/mst_setr_naive_vit_small_cityscapes.py 8
_base_ = [
    "_base_/setr_naive_vit_small.py",
    "_base_/cityscapes_768x768.py",
    "_base_/sgd_80k.py",
    "mmseg::_base_/default_runtime.py",
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
