# UPerNet, DINOv3's ViT-S/16, ADE20K, 512x512, 160k steps at batch 16, AdamW 1e-4. No figure known; not measured
# here.   tools/dist_train.sh seg_configs/mst_upernet_dinov3_vit_small_ade20k.py 8 --amp
# Frozen: --cfg-options +model.backbone.frozen_stages=all
_base_ = "./mst_upernet_vit_small_ade20k.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch16_dinov3",
        checkpoint="timm://vit_small_patch16_dinov3.lvd1689m",
    ),
)
