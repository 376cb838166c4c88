# A linear layer on DINOv2's frozen ViT-S/14, ADE20K, 512x512, 40k steps at batch 16, AdamW 1e-3.
# DINOv2's paper: 44.3 mIoU without registers, with a BatchNorm in the head (not measured here).
#   tools/dist_train.sh seg_configs/mst_linear_dinov2_vit_small_ade20k.py 8
# 512 px are padded to 518, whole patches.
# Tuned: --cfg-options model.backbone.frozen_stages=-1 optim_wrapper.optimizer.lr=1e-4, or a recipe of UPerNet.
_base_ = "./mst_linear_vit_small_ade20k.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch14_reg4_dinov2",
        img_size=(518, 518),
        checkpoint="timm://vit_small_patch14_reg4_dinov2.lvd142m",
    ),
)
