# Small images in Cityscapes' layout, at their own size. Leaves set data root, classes and crops.
_base_ = "mmseg::_base_/datasets/cityscapes.py"
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=4, num_workers=1)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
