# Mask R-CNN, FPN, Swin-T, COCO 2017, multi-scale with crops, 3x: 36 epochs, AdamW 1e-4 at batch 16. mmdet's model
# zoo: 46.0 box, 41.6 mask mAP with supervised weights (not measured here).
#   tools/dist_train.sh det_configs/mst_maskrcnn_swin_tiny_coco_3x.py 8
_base_ = [
    "_base_/maskrcnn_swin_tiny.py",
    "_base_/coco_ms_crop.py",
    "_base_/adamw_swin_3x.py",
    "mmdet::_base_/default_runtime.py",
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
