# ViTDet (Mask R-CNN), ViT-B/16, COCO 2017, large-scale jitter at 1024 px, 100 epochs, AdamW 1e-4 at batch 64.
# detectron2's model zoo: 51.6 box, 45.9 mask mAP with MAE's weights (not measured here). On 8 GPUs of one image each:
#   tools/dist_train.sh det_configs/mst_vitdet_base_coco_100e.py 8 --amp --accumulate auto
_base_ = [
    "_base_/vitdet_base.py",
    "_base_/coco_lsj.py",
    "_base_/adamw_vitdet_100e.py",
    "mmdet::_base_/default_runtime.py",
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
