# Cityscapes under $MST_DATA_ROOT/cityscapes: leftImg8bit/{train,val}/,
# gtFine/{train,val}/ with the downloaded *_labelIds.png, prepared *_labelTrainIds.png, or both. Crops and sizes are
# those of mmseg's 768x768 set; `mst test --tta` averages six sizes and their mirror images.
_base_ = "mmseg::_base_/datasets/cityscapes.py"
crop_size = (768, 768)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2049, 1025), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2049, 1025), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(round(2049 * ratio), round(1025 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type="RandomFlip", prob=prob, direction="horizontal") for prob in (0.0, 1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
_dataset = dict(type="mst_transfer.CityscapesDataset", data_root="{{$MST_DATA_ROOT:data}}/cityscapes/")
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline, **_dataset))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **_dataset))
test_dataloader = val_dataloader
