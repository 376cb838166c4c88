# ViTDet (Mask R-CNN), DINOv3's ViT-S/16, COCO 2017, large-scale jitter at 1024 px, 100 epochs, AdamW 1e-4 at
# batch 64. No figure known; not measured here. On 8 GPUs of one image each:
#   tools/dist_train.sh det_configs/mst_vitdet_dinov3_vit_small_coco_100e.py 8 --amp --accumulate auto
# Windows of 16 x 16 tokens are as large as the crops of pre-training, 256 px, and fill 64 x 64.
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
        arch="vit_small_patch16_dinov3",
        window_size=16,
        checkpoint="timm://vit_small_patch16_dinov3.lvd1689m",
    ),
    neck=dict(in_channels=384),
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
