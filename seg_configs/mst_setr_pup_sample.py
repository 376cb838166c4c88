# SETR-PUP on the sample data (mst sample-data): four surfaces and six classes of objects.
#   tools/dist_train.sh seg_configs/mst_setr_pup_sample.py 1
_base_ = [
    "_base_/setr_pup_vit_tiny.py",
    "_base_/cityscapes_small.py",
    "_base_/adamw_small.py",
    "mmseg::_base_/default_runtime.py",
]
data_root = "{{$MST_DATA_ROOT:data}}/sample/cityscapes/"
metainfo = dict(
    classes=("grass", "gravel", "brick", "stars", "flag", "quilt", "beetle", "tent", "net", "cow"),
    palette=[
        *([107, 160, 72], [148, 148, 152], [156, 112, 92], [40, 60, 110]),
        *([232, 106, 51], [245, 200, 66], [152, 90, 190], [220, 60, 105], [30, 160, 150], [90, 70, 60]),
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
    data_preprocessor=dict(size=(96, 96)),
    # The backbone that pretrain/configs/mst_vit_sample.py trains: change it there too.
    backbone=dict(
        img_size=48,
        patch_size=8,
        embed_dim=96,
        depth=4,
        num_heads=3,
        checkpoint="work_dirs/mst_vit_sample/teacher.safetensors",
    ),
    decode_head=dict(in_channels=96, num_classes=10),
    auxiliary_head=dict(in_channels=96, num_classes=10),
)
train_cfg = dict(max_iters=300, val_interval=100)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=300, eta_min=0.0, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=300))
