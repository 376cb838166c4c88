# Mask R-CNN, FPN, Swin-S, COCO 2017, 1x: 12 epochs, AdamW 1e-4 at batch 16. No figure known; not measured here.
#   tools/dist_train.sh det_configs/mst_maskrcnn_swin_small_coco.py 8
_base_ = "./mst_maskrcnn_swin_tiny_coco.py"
model = dict(
    backbone=dict(
        arch="swin_small_patch4_window7_224",
        checkpoint="work_dirs/mst_swin_small_imagenet_100e/teacher.safetensors",
    )
)
