# Mask R-CNN on coco_mini: 394 photographs of at most 320 px, all 80 classes of COCO.
#   MST_DATA_ROOT=FOLDER tools/dist_train.sh det_configs/mst_maskrcnn_coco_mini.py 1
_base_ = [
    "_base_/maskrcnn_vit_tiny.py",
    "_base_/coco_small.py",
    "_base_/adamw_small.py",
    "mmdet::_base_/default_runtime.py",
]
data_root = "{{$MST_DATA_ROOT:data}}/coco_mini/"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=12, max_keep_ckpts=1))
