# Mask R-CNN on the sample data (mst sample-data): six classes of objects.
#   tools/dist_train.sh det_configs/mst_maskrcnn_sample.py 1
_base_ = [
    "_base_/maskrcnn_vit_tiny.py",
    "_base_/coco_small.py",
    "_base_/adamw_small.py",
    "mmdet::_base_/default_runtime.py",
]
data_root = "{{$MST_DATA_ROOT:data}}/sample/coco/"
metainfo = dict(
    classes=("flag", "quilt", "beetle", "tent", "net", "cow"),
    palette=[(232, 106, 51), (245, 200, 66), (152, 90, 190), (220, 60, 105), (30, 160, 150), (90, 70, 60)],
)
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator

model = dict(
    # The backbone that pretrain/configs/mst_vit_sample.py trains: change it there too.
    backbone=dict(
        img_size=48,
        patch_size=8,
        embed_dim=96,
        depth=4,
        num_heads=3,
        checkpoint="work_dirs/mst_vit_sample/teacher.safetensors",
    ),
    neck=dict(in_channels=[96, 96, 96, 96]),
    roi_head=dict(bbox_head=dict(num_classes=6), mask_head=dict(num_classes=6)),
)
train_cfg = dict(max_epochs=24, val_interval=8)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=24, eta_min=0.0, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=8, max_keep_ckpts=1))
