# ViTDet's Mask R-CNN: windows of 14 x 14 tokens with four global blocks, a pyramid made of the last block alone,
# LayerNorm in the heads, two convolutions in the RPN, four and one layer for boxes. Every image is padded to
# 1024 x 1024. Unlike there, blocks have no relative position embeddings: timm's ViTs have none.
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"
norm_cfg = dict(type="mst_transfer.LN2d", eps=1e-6)
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmViT",
        arch="vit_base_patch16_224",
        out_indices=(-1,),
        window_size=14,
        drop_path_rate=0.1,
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    neck=dict(
        _delete_=True,
        type="mst_transfer.SimpleFeaturePyramid",
        in_channels=768,
        out_channels=256,
        num_outs=5,
    ),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
