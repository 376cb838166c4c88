# SETR-PUP on the sample data (mst sample-data): four kinds of background and five of objects.
#   tools/dist_train.sh seg_configs/mst_setr_pup_sample.py 1
_base_ = [
    "_base_/setr_pup_vit_tiny.py",
    "_base_/cityscapes_small.py",
    "_base_/adamw_small.py",
    "mmseg::_base_/default_runtime.py",
]
data_root = "{{$MST_DATA_ROOT:data}}/sample/cityscapes/"
metainfo = dict(
    classes=("sky", "wall", "grass", "gravel", "disc", "triangle", "box", "star", "ring"),
    palette=[
        *([113, 170, 219], [156, 112, 92], [107, 160, 72], [148, 148, 152]),
        *([232, 106, 51], [245, 200, 66], [152, 90, 190], [220, 60, 105], [30, 160, 150]),
    ],
)
_dataset = dict(
    type="BaseSegDataset",
    img_suffix="_leftImg8bit.png",
    seg_map_suffix="_gtFine_labelTrainIds.png",
    data_root=data_root,
    metainfo=metainfo,
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **_dataset))
val_dataloader = dict(dataset=_dataset)
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    # The backbone that pretrain/configs/mst_vit_sample.py trains: change it there too.
    backbone=dict(
        img_size=64,
        patch_size=8,
        embed_dim=128,
        depth=4,
        num_heads=4,
        checkpoint="work_dirs/mst_vit_sample/teacher.safetensors",
    ),
    decode_head=dict(in_channels=128, num_classes=9),
    auxiliary_head=dict(in_channels=128, num_classes=9),
)
train_cfg = dict(max_iters=300, val_interval=100)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=300, eta_min=0.0, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=300))
