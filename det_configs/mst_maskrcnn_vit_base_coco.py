# Mask R-CNN, FPN, ViT-B/16, COCO 2017, 1x: 12 epochs, AdamW 1e-4 at batch 16. No figure known; not measured here.
#   tools/dist_train.sh det_configs/mst_maskrcnn_vit_base_coco.py 8
_base_ = "./mst_maskrcnn_coco.py"
model = dict(
    backbone=dict(
        arch="vit_base_patch16_224",
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    neck=dict(in_channels=[768, 768, 768, 768]),
)
