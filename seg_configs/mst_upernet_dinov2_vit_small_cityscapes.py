# UPerNet, DINOv2's ViT-S/14, Cityscapes, 768x768, 80k steps at batch 8, AdamW 1e-4. No figure known; not measured
# here.   tools/dist_train.sh seg_configs/mst_upernet_dinov2_vit_small_cityscapes.py 8 --amp
# 768 px are padded to 770, whole patches.
# Frozen: --cfg-options +model.backbone.frozen_stages=all
_base_ = "./mst_upernet_vit_small_cityscapes.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch14_reg4_dinov2",
        img_size=(770, 770),
        checkpoint="timm://vit_small_patch14_reg4_dinov2.lvd142m",
    ),
)
