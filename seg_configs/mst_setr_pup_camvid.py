# SETR-PUP on CamVid in Cityscapes' layout: 480x360, the 11 of the 19 Cityscapes classes that CamVid has.
#   MST_DATA_ROOT=FOLDER tools/dist_train.sh seg_configs/mst_setr_pup_camvid.py 1
# The train ids of the files are mapped to these 11, so mIoU is the mean over classes that occur.
_base_ = [
    "_base_/setr_pup_vit_tiny.py",
    "_base_/cityscapes_small.py",
    "_base_/adamw_small.py",
    "mmseg::_base_/default_runtime.py",
]
crop_size = (240, 320)
_dataset = dict(
    data_root="{{$MST_DATA_ROOT:data}}/camvid/",
    img_suffix="_leftImg8bit.jpg",
    metainfo=dict(
        classes=(
            *("road", "sidewalk", "building", "fence", "pole", "traffic sign"),
            *("vegetation", "sky", "person", "rider", "car"),
        )
    ),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **_dataset))
val_dataloader = dict(dataset=_dataset)
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
train_cfg = dict(max_iters=1000, val_interval=1000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", T_max=1000, eta_min=0.0, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=1000))
