# Cascade Mask R-CNN, FPN, Swin-T, COCO 2017, 1x: 12 epochs, AdamW 1e-4 at batch 16. MoBY's table: 48.1 box, 41.5
# mask mAP with MoBY's weights, 48.1 and 41.7 with supervised ones, in several sizes with crops (not measured here;
# with Mask R-CNN these were worth 1.0 box mAP).
#   tools/dist_train.sh det_configs/mst_cascade_maskrcnn_swin_tiny_coco.py 8
_base_ = [
    "_base_/cascade_maskrcnn_4conv1fc.py",
    "_base_/coco.py",
    "_base_/adamw_swin_1x.py",
    "mmdet::_base_/default_runtime.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmSwin",
        arch="swin_tiny_patch4_window7_224",
        drop_path_rate=0.1,
        checkpoint="work_dirs/mst_swin_tiny_imagenet_100e/teacher.safetensors",
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
