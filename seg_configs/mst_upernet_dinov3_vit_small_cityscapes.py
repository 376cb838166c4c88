# UPerNet, DINOv3's ViT-S/16, Cityscapes, 768x768, 80k steps at batch 8, AdamW 1e-4. No figure known; not measured
# here.   tools/dist_train.sh seg_configs/mst_upernet_dinov3_vit_small_cityscapes.py 8 --amp
# Frozen: --cfg-options +model.backbone.frozen_stages=all
_base_ = "./mst_upernet_vit_small_cityscapes.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch16_dinov3",
        checkpoint="timm://vit_small_patch16_dinov3.lvd1689m",
    ),
)
