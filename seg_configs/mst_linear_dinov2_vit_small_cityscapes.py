# A linear layer on DINOv2's frozen ViT-S/14, Cityscapes, 768x768, 40k steps at batch 16, AdamW 1e-3.
# DINOv2's paper: 66.6 mIoU without registers, with a BatchNorm in the head (not measured here).
#   tools/dist_train.sh seg_configs/mst_linear_dinov2_vit_small_cityscapes.py 8
# 768 px are padded to 770, whole patches.
# Tuned: --cfg-options model.backbone.frozen_stages=-1 optim_wrapper.optimizer.lr=1e-4, or a recipe of UPerNet.
_base_ = "./mst_linear_vit_small_cityscapes.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch14_reg4_dinov2",
        img_size=(770, 770),
        checkpoint="timm://vit_small_patch14_reg4_dinov2.lvd142m",
    ),
)
