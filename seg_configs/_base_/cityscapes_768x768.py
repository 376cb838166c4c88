# Cityscapes under $MST_DATA_ROOT/cityscapes: leftImg8bit/{train,val}/,
# gtFine/{train,val}/ with the downloaded *_labelIds.png, prepared *_labelTrainIds.png, or both. `mst test --tta`
# averages six sizes and their mirror images.
_base_ = "mmseg::_base_/datasets/cityscapes_768x768.py"
data_root = "{{$MST_DATA_ROOT:data}}/cityscapes/"
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
train_dataloader = dict(batch_size=1, dataset=dict(type="mst_transfer.CityscapesDataset", data_root=data_root))
val_dataloader = dict(dataset=dict(type="mst_transfer.CityscapesDataset", data_root=data_root))
test_dataloader = val_dataloader
