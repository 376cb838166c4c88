# Can it learn? Trains and evaluates on the same 16 images of coco_mini: box mAP must pass 50. Random start.
#   MST_DATA_ROOT=FOLDER tools/dist_train.sh det_configs/mst_maskrcnn_coco_mini_overfit16.py 1
_base_ = "./mst_maskrcnn_coco_mini.py"
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale_factor=1.0, keep_ratio=True),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(indices=16, filter_cfg=None, pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(indices=16, ann_file="annotations/instances_train.json", data_prefix=dict(img="train/"))
)
test_dataloader = val_dataloader
# Without a file, the ground truth is what the dataset holds: these 16 images.
val_evaluator = dict(ann_file=None)
test_evaluator = val_evaluator

model = dict(backbone=dict(checkpoint=None))
train_cfg = dict(max_epochs=40, val_interval=20)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=40, eta_min=0.0, convert_to_iter_based=True),
]
