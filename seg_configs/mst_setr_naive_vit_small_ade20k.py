# SETR-naive, ViT-S/16, ADE20K, 512x512, 160k steps at batch 16, SGD 0.01. mmseg's model zoo has 48.28 mIoU
# (49.56 multi-scale) for a supervised ViT-L (not measured here).
#   tools/dist_train.sh seg_configs/mst_setr_naive_vit_small_ade20k.py 8
_base_ = [
    "_base_/setr_naive_vit_small.py",
    "_base_/ade20k_512x512.py",
    "_base_/sgd_160k.py",
    "mmseg::_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(img_size=(512, 512)),
    decode_head=dict(num_classes=150),
    auxiliary_head=[dict(head, num_classes=150, num_convs=2) for head in _base_.model.auxiliary_head],
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
