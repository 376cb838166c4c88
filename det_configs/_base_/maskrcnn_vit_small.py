# Mask R-CNN with FPN on a ViT-S/16 whose four evenly spaced blocks give the maps at strides 4, 8, 16 and 32.
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"
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
