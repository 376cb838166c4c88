# Mask R-CNN, FPN, DINOv2's ViT-S/14, COCO 2017, 1x: 12 epochs, AdamW 1e-4 at batch 16. No figure known; not measured
# here.   tools/dist_train.sh det_configs/mst_maskrcnn_dinov2_vit_small_coco.py 8 --amp
# Frozen: --cfg-options +model.backbone.frozen_stages=all
_base_ = "./mst_maskrcnn_coco.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch14_reg4_dinov2",
        checkpoint="timm://vit_small_patch14_reg4_dinov2.lvd142m",
    ),
)
