# A small Mask R-CNN for two CPU cores: 192-d ViT of 6 blocks, narrow FPN and heads, few proposals.
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmViTPyramid",
        # The backbone that pretrain/configs/mst_vit_photos.py trains: change it there too.
        arch="vit_tiny_patch16_224",
        img_size=96,
        patch_size=16,
        embed_dim=192,
        depth=6,
        num_heads=3,
        checkpoint="work_dirs/mst_vit_photos/teacher.safetensors",
    ),
    neck=dict(in_channels=[192, 192, 192, 192], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200), rcnn=dict(max_per_img=50)),
)
