# Mask R-CNN, FPN, ViT-S/16, COCO 2017, 1x. The paper's figure: 42.7 box mAP, backbone unknown (not measured here).
#   tools/dist_train.sh det_configs/mst_maskrcnn_coco.py 8
# Other weights: --cfg-options model.backbone.checkpoint=PATH, or =None for a random initialisation.
_base_ = [
    "_base_/maskrcnn_vit_small.py",
    "_base_/coco.py",
    "_base_/adamw_1x.py",
    "mmdet::_base_/default_runtime.py",
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
