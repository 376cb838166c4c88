# Mask R-CNN with FPN on the four stages of a Swin-T.
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"
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
