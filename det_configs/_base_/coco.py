# COCO 2017 under $MST_DATA_ROOT/coco: train2017/, val2017/, annotations/instances_{train,val}2017.json.
_base_ = "mmdet::_base_/datasets/coco_instance.py"
data_root = "{{$MST_DATA_ROOT:data}}/coco/"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(type="mst_transfer.CocoMetric", ann_file=data_root + "annotations/instances_val2017.json")
test_evaluator = val_evaluator
