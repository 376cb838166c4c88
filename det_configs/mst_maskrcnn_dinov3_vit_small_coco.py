# Mask R-CNN, FPN, DINOv3's ViT-S/16, COCO 2017, 1x: 12 epochs, AdamW 1e-4 at batch 16. No figure known; not measured
# here.   tools/dist_train.sh det_configs/mst_maskrcnn_dinov3_vit_small_coco.py 8 --amp
# Frozen: --cfg-options +model.backbone.frozen_stages=all
_base_ = "./mst_maskrcnn_coco.py"
model = dict(
    backbone=dict(
        arch="vit_small_patch16_dinov3",
        checkpoint="timm://vit_small_patch16_dinov3.lvd1689m",
    ),
)
