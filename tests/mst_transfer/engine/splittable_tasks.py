"""The tiny tasks without what draws in each process of its own, so that their training can be split."""

from pathlib import Path

import tiny_tasks

COMMON = """
train_dataloader.update(batch_size=6, batch_sampler=None, sampler=dict(type="DefaultSampler", shuffle=True))
_train, _val = (dict(_dataset, data_root={root!r} + part, filter_cfg=None) for part in ("/train", "/val"))
param_scheduler = [dict(type="MultiStepLR", by_epoch=True, milestones=[1], gamma=0.5)]
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1), logger=dict(type="LoggerHook", interval=1))
_sgd = dict(type="SGD", lr={lr}, momentum=0.9, weight_decay=0.05)
optim_wrapper = dict(type="OptimWrapper", optimizer=_sgd)
_vit = dict(arch="vit_tiny_patch16_224", embed_dim=24, depth=4, num_heads=3, drop_path_rate=0.0, checkpoint=None)
_decay = dict(
    constructor="mst_transfer.LayerDecayOptimWrapperConstructor", paramwise_cfg=dict(layer_decay_rate=0.7)
)
"""

SEG = """
_flips = [dict(type="RandomCrop", crop_size=(48, 48)), dict(type="RandomFlip", prob=0.5)]
train_dataloader["dataset"] = dict(_train, pipeline=[*_pipeline[:2], *_flips, _pipeline[2]])
val_dataloader["dataset"] = _val
val_evaluator["iou_metrics"] = ["mIoU", "mFscore"]
model["data_preprocessor"].update(size=(48, 48), seg_pad_val=255)
"""
VIT_SEG = """
model["backbone"] = dict(_vit, type="mst_transfer.TimmViT", img_size=48, patch_size=8)
model["decode_head"].update(in_channels=24, norm_cfg=None)
optim_wrapper.update(_decay)
"""

DET = """
optim_wrapper.update(_decay, _delete_=True)
_classes = dict(classes=("cat", "dog"), palette=[(220, 20, 60), (60, 20, 220)])
_resize = dict(type="Resize", scale=(64, 64), keep_ratio=True)
_pack = dict(
    type="PackDetInputs",
    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction"),
)
_flip = dict(type="RandomFlip", prob=0.5)
train_dataloader["dataset"] = dict(_train, metainfo=_classes, pipeline=[*_pipeline[:2], _resize, _flip, _pack])
val_dataloader["dataset"] = dict(_val, metainfo=_classes, pipeline=[*_pipeline[:2], _resize, _pack])
_metric = dict(ann_file={root!r} + "/val/boxes.json", metric={metric!r}, classwise=True)
val_evaluator = [
    dict(_metric, type="mst_transfer.CocoMetric", prefix="mst"), dict(_metric, type="mmdet.CocoMetric", prefix="mmdet")
]
test_evaluator = val_evaluator
model["backbone"].update(_vit, img_size=64, patch_size=16)
model["roi_head"]["bbox_head"]["num_classes"] = model["roi_head"]["mask_head"]["num_classes"] = 2
model["test_cfg"]["rcnn"]["score_thr"] = 0.01
"""
FCOS = """
model = dict(
    _delete_=True,
    type="FCOS",
    data_preprocessor=dict(
        type="DetDataPreprocessor", mean=[127.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, pad_size_divisor=32
    ),
    backbone=dict(_vit, type="mst_transfer.TimmViTPyramid", img_size=64, patch_size=16),
    neck=dict(type="FPN", in_channels=[24] * 4, out_channels=16, num_outs=4),
    bbox_head=dict(
        type="FCOSHead", num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1, strides=[4, 8, 16, 32],
        regress_ranges=((-1, 8), (8, 16), (16, 32), (32, 1e8)), norm_cfg=dict(type="GN", num_groups=4),
    ),
    test_cfg=dict(
        nms_pre=100, min_bbox_size=0, score_thr=0.01, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20
    ),
)
"""


def write_data(root: Path, num_train: int, num_val: int) -> None:
    """Training images of 64 × 64 and validation images of several sizes, with masks and COCO annotations."""
    several = [(48 + 8 * (index % 3), 64 + 8 * (index % 2)) for index in range(6)]
    for split, count, sizes in (("train", num_train, [(64, 64)]), ("val", num_val, several)):
        tiny_tasks.make_pictures(root / split, count, sizes, classes=("cat", "dog"), unlabelled=12)


def write_config(name: str, folder: Path, data: Path) -> Path:
    """``sync`` and ``plain``: segmentation with BatchNorm, over processes or not; ``vit``: without.

    ``mask``: Mask R-CNN; ``fcos``: a detector whose loss is normalised over all processes.
    """
    if name in ("mask", "fcos"):
        text = tiny_tasks.DET + COMMON + DET + (FCOS if name == "fcos" else "")
    else:
        text = tiny_tasks.TINY_SEG + COMMON.replace(", filter_cfg=None", "") + SEG + (VIT_SEG if name == "vit" else "")
    values = dict(root=str(data), lr=0.02 if name in ("mask", "fcos") else 0.05)
    values["metric"] = ["bbox", "segm"] if name == "mask" else "bbox"
    for key, value in values.items():
        text = text.replace("{" + key + "!r}", repr(value)).replace("{" + key + "}", str(value))
    path = folder / f"{name}.py"
    path.write_text(text.replace("SyncBN", "BN") if name == "plain" else text)
    return path
