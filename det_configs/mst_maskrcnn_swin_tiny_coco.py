# Mask R-CNN, FPN, Swin-T, COCO 2017, 1x: 12 epochs, AdamW 1e-4 at batch 16. The paper's figure: 42.7 box mAP,
# backbone unknown (not measured here).   tools/dist_train.sh det_configs/mst_maskrcnn_swin_tiny_coco.py 8
_base_ = [
    "_base_/maskrcnn_swin_tiny.py",
    "_base_/coco.py",
    "_base_/adamw_swin_1x.py",
    "mmdet::_base_/default_runtime.py",
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
