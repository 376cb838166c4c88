# SETR-PUP, ViT-S/16, Cityscapes, 768x768, 40k steps at batch 8. Figure to reproduce: 74.04 mIoU (not
# measured here).   tools/dist_train.sh seg_configs/mst_setr_pup_cityscapes.py 8
# Other weights: --cfg-options model.backbone.checkpoint=PATH, or =None for a random initialisation.
_base_ = [
    "_base_/setr_pup_vit_small.py",
    "_base_/cityscapes_768x768.py",
    "_base_/sgd_40k.py",
    "mmseg::_base_/default_runtime.py",
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
