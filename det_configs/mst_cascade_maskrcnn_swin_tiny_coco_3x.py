# Cascade Mask R-CNN, FPN, Swin-T, COCO 2017, multi-scale with crops, 3x: 36 epochs, AdamW 1e-4 at batch 16. Swin
# paper: 50.4 box, 43.7 mask mAP with supervised weights; MoBY: 50.2, 43.5 (not measured here).
#   tools/dist_train.sh det_configs/mst_cascade_maskrcnn_swin_tiny_coco_3x.py 8
_base_ = [
    "_base_/cascade_maskrcnn_4conv1fc.py",
    "_base_/coco_ms_crop.py",
    "_base_/adamw_swin_3x.py",
    "mmdet::_base_/default_runtime.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmSwin",
        arch="swin_tiny_patch4_window7_224",
        drop_path_rate=0.2,
        checkpoint="work_dirs/mst_swin_tiny_imagenet_100e/teacher.safetensors",
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
