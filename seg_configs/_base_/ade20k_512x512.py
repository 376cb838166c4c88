# ADE20K (ADEChallengeData2016) under $MST_DATA_ROOT/ade: {images,annotations}/{training,validation}/. Value 0 of the
# masks is "other" and ignored, 1 to 150 are the classes. `mst test --tta` averages six sizes and their mirror images.
_base_ = "mmseg::_base_/datasets/ade20k.py"
data_root = "{{$MST_DATA_ROOT:data}}/ade/ADEChallengeData2016"
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(round(2048 * ratio), round(512 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type="RandomFlip", prob=prob, direction="horizontal") for prob in (0.0, 1.0)],
            [dict(type="LoadAnnotations", reduce_zero_label=True)],
            [dict(type="PackSegInputs")],
        ],
    ),
]
train_dataloader = dict(batch_size=2, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
