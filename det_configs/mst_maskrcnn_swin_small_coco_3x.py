# Mask R-CNN, FPN, Swin-S, COCO 2017, multi-scale with crops, 3x: 36 epochs, AdamW 1e-4 at batch 16. mmdet's model
# zoo: 48.2 box, 43.2 mask mAP with supervised weights and --amp (not measured here).
#   tools/dist_train.sh det_configs/mst_maskrcnn_swin_small_coco_3x.py 8
_base_ = [
    "_base_/maskrcnn_swin_tiny.py",
    "_base_/coco_ms_crop.py",
    "_base_/adamw_swin_3x.py",
    "mmdet::_base_/default_runtime.py",
]
model = dict(
    backbone=dict(
        arch="swin_small_patch4_window7_224",
        checkpoint="work_dirs/mst_swin_small_imagenet_100e/teacher.safetensors",
    )
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
