"""Small data sets and models whose training can be split: squares to detect and to segment."""

from pathlib import Path
from typing import Any

import tiny_tasks

COMMON = """
_base_ = {bases!r}
default_scope = {scope!r}
train_dataloader = dict(
    batch_size=6, num_workers=0, persistent_workers=False, sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=None, dataset={train!r},
)
val_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset={val!r},
)
test_dataloader = val_dataloader
val_evaluator = {evaluator!r}
test_evaluator = val_evaluator
model = {model!r}
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="SGD", lr={lr}, momentum=0.9, weight_decay=0.05), **{decay!r}
)
param_scheduler = [dict(type="MultiStepLR", by_epoch=True, milestones=[1], gamma=0.5)]
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1), logger=dict(type="LoggerHook", interval=1))
env_cfg = dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
"""
VIT = dict(arch="vit_tiny_patch16_224", embed_dim=24, depth=4, num_heads=3, checkpoint=None)
DECAY = dict(constructor="mst_transfer.LayerDecayOptimWrapperConstructor", paramwise_cfg=dict(layer_decay_rate=0.7))


def write_data(root: Path, num_train: int, num_val: int) -> None:
    """Training images of 64 × 64 and validation images of several sizes, with masks and COCO annotations."""
    several = [(48 + 8 * (index % 3), 64 + 8 * (index % 2)) for index in range(6)]
    for split, count, sizes in (("train", num_train, [(64, 64)]), ("val", num_val, several)):
        tiny_tasks.make_pictures(root / split, count, sizes, classes=("cat", "dog"), unlabelled=12)


def write_seg_config(path: Path, root: Path, norm: dict | None, vit: bool) -> Path:
    """A ViT without BatchNorm, or a ResNet, under an FCN head; random flips and crops."""
    flips = [dict(type="RandomCrop", crop_size=(48, 48)), dict(type="RandomFlip", prob=0.5)]
    load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]

    def dataset(split: str, transforms: list[dict]) -> dict[str, Any]:
        return dict(
            type="BaseSegDataset",
            data_root=str(root / split),
            data_prefix=dict(img_path="images", seg_map_path="masks"),
            metainfo=dict(classes=("dark", "light"), palette=[(0, 0, 0), (255, 255, 255)]),
            pipeline=[*load, *transforms, dict(type="PackSegInputs")],
        )

    backbone: dict[str, Any] = dict(type="ResNet", depth=18, base_channels=4, norm_cfg=norm)
    if vit:
        backbone = dict(VIT, type="mst_transfer.TimmViT", img_size=48, patch_size=8)
    head = dict(type="FCNHead", in_channels=24 if vit else 32, in_index=3, channels=8, num_convs=1, num_classes=2)
    model = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(
            type="SegDataPreProcessor", mean=[127.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, size=(48, 48),
            seg_pad_val=255,
        ),
        backbone=backbone,
        decode_head=dict(head, norm_cfg=norm, dropout_ratio=0.0),
        test_cfg=dict(mode="whole"),
    )  # fmt: skip
    text = COMMON.format(
        bases=[],
        scope="mmseg",
        train=dataset("train", flips),
        val=dataset("val", []),
        evaluator=dict(type="IoUMetric", iou_metrics=["mIoU", "mFscore"]),
        model=model,
        lr=0.05,
        decay=DECAY if vit else {},
    )
    path.write_text(text)
    return path


def write_det_config(path: Path, root: Path, model: dict[str, Any], bases: list[str]) -> Path:
    """A detector of squares, with random flips; both COCO metrics."""

    def dataset(split: str, transforms: list[dict]) -> dict[str, Any]:
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
        load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True)]
        return dict(
            type="CocoDataset",
            data_root=str(root / split),
            ann_file="boxes.json",
            data_prefix=dict(img="images/"),
            metainfo=dict(classes=("cat", "dog")),
            pipeline=[*load, *transforms, dict(type="PackDetInputs", meta_keys=keys)],
        )

    resize = dict(type="Resize", scale=(64, 64), keep_ratio=True)
    metric = dict(ann_file=f"{root}/val/boxes.json", metric=["bbox", "segm"] if bases else "bbox", classwise=True)
    text = COMMON.format(
        bases=bases,
        scope="mmdet",
        train=dataset("train", [resize, dict(type="RandomFlip", prob=0.5)]),
        val=dataset("val", [resize]),
        evaluator=[
            dict(metric, type="mst_transfer.CocoMetric", prefix="mst"),
            dict(metric, type="mmdet.CocoMetric", prefix="mmdet"),
        ],
        model=model,
        lr=0.02,
        decay=DECAY,
    )
    path.write_text(text)
    return path


def fcos() -> dict[str, Any]:
    """A small FCOS, whose loss is normalised over all processes."""
    return dict(
        type="FCOS",
        data_preprocessor=dict(
            type="DetDataPreprocessor", mean=[127.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, pad_size_divisor=32
        ),
        backbone=dict(VIT, type="mst_transfer.TimmViTPyramid", img_size=64, patch_size=16),
        neck=dict(type="FPN", in_channels=[24] * 4, out_channels=16, num_outs=4),
        bbox_head=dict(
            type="FCOSHead", num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1, strides=[4, 8, 16, 32],
            regress_ranges=((-1, 8), (8, 16), (16, 32), (32, 1e8)), norm_cfg=dict(type="GN", num_groups=4),
        ),
        test_cfg=dict(
            nms_pre=100, min_bbox_size=0, score_thr=0.01, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20
        ),
    )  # fmt: skip


def mask_rcnn() -> dict[str, Any]:
    """What makes mmdet's Mask R-CNN small."""
    width = 16
    return dict(
        data_preprocessor=dict(mean=[127.0] * 3, std=[60.0] * 3),
        backbone=dict(VIT, _delete_=True, type="mst_transfer.TimmViTPyramid", img_size=64, patch_size=16),
        neck=dict(in_channels=[24] * 4, out_channels=width),
        rpn_head=dict(in_channels=width, feat_channels=width, anchor_generator=dict(scales=[4])),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=width),
            bbox_head=dict(in_channels=width, fc_out_channels=32, num_classes=2),
            mask_roi_extractor=dict(out_channels=width),
            mask_head=dict(num_convs=1, in_channels=width, conv_out_channels=width, num_classes=2),
        ),
        train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=20), rcnn=dict(sampler=dict(num=16))),
        test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(max_per_img=10, score_thr=0.01)),
    )
