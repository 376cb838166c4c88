# Cascade Mask R-CNN, FPN, ViT-S/16, COCO 2017, 1x: 12 epochs, AdamW 1e-4 at batch 16. No figure known; not measured
# here.   tools/dist_train.sh det_configs/mst_cascade_maskrcnn_vit_small_coco.py 8
_base_ = [
    "_base_/cascade_maskrcnn_4conv1fc.py",
    "_base_/coco.py",
    "_base_/adamw_1x.py",
    "mmdet::_base_/default_runtime.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmViTPyramid",
        arch="vit_small_patch16_224",
        drop_path_rate=0.1,
        checkpoint="work_dirs/mst_vit_small_16_imagenet_100e/teacher.safetensors",
    ),
    neck=dict(in_channels=[384, 384, 384, 384]),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
