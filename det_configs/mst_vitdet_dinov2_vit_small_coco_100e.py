# ViTDet (Mask R-CNN), DINOv2's ViT-S/14, COCO 2017, large-scale jitter at 1024 px, 100 epochs, AdamW 1e-4 at
# batch 64. No figure known; not measured here. On 8 GPUs of one image each:
#   tools/dist_train.sh det_configs/mst_vitdet_dinov2_vit_small_coco_100e.py 8 --amp --accumulate auto
# Windows of 15 x 15 tokens (210 px): five of them nearly fill the 74 x 74 tokens of 1024 px.
# Rates of the ViTDet paper for a ViT-L: --cfg-options optim_wrapper.paramwise_cfg.layer_decay_rate=0.8
#   model.backbone.drop_path_rate=0.4. Frozen, with the source's own features: +model.backbone.frozen_stages=all
#   model.backbone.window_size=0
_base_ = [
    "_base_/vitdet_base.py",
    "_base_/coco_lsj.py",
    "_base_/adamw_vitdet_100e.py",
    "mmdet::_base_/default_runtime.py",
]
model = dict(
    backbone=dict(
        arch="vit_small_patch14_reg4_dinov2",
        window_size=15,
        checkpoint="timm://vit_small_patch14_reg4_dinov2.lvd142m",
    ),
    neck=dict(in_channels=384, patch_size=14),
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
