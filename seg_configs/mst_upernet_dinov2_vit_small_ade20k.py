# UPerNet, DINOv2's ViT-S/14, ADE20K, 512x512, 160k steps at batch 16, AdamW 1e-4. No figure known; not measured
# here.   tools/dist_train.sh seg_configs/mst_upernet_dinov2_vit_small_ade20k.py 8 --amp
# 512 px are padded to 518, whole patches.
# Frozen: --cfg-options +model.backbone.frozen_stages=all
_base_ = "./mst_upernet_vit_small_ade20k.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch14_reg4_dinov2",
        img_size=(518, 518),
        checkpoint="timm://vit_small_patch14_reg4_dinov2.lvd142m",
    ),
)
