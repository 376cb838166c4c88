# A linear layer on DINOv3's frozen ViT-S/16, ADE20K, 512x512, 40k steps at batch 16, AdamW 1e-3.
# DINOv3's model card: 47.0 mIoU, with a BatchNorm in the head (not measured here).
#   tools/dist_train.sh seg_configs/mst_linear_dinov3_vit_small_ade20k.py 8
# Tuned: --cfg-options model.backbone.frozen_stages=-1 optim_wrapper.optimizer.lr=1e-4, or a recipe of UPerNet.
_base_ = "./mst_linear_vit_small_ade20k.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch16_dinov3",
        checkpoint="timm://vit_small_patch16_dinov3.lvd1689m",
    ),
)
