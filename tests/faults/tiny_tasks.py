"""Runs of all three tasks that last seconds: data, configs, and how each is started in this process."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

PRETRAIN = """
_base_ = "mst_transfer::pretrain/configs/mst_vit_sample.py"
model = dict(
    backbone=dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, drop_path_rate=0.2),
    head=dict(out_dim=32, hidden_dim=16, bottleneck_dim=8),
    masking=dict(p=0.5, num=2),
    decoder=dict(channels=(8, 8, 8)),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(data_root={root!r}, global_size=32, local_size=16, num_local_crops=2),
)
train_cfg = dict(max_epochs=5, accumulation_steps=2, schedule=dict(warmup_epochs=1, base_lr=0.05))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=2))
visualizer = dict(vis_backends=[dict(type="mmengine.LocalVisBackend")])
"""

# Iterations, endless sampler, accumulation over checkpoints, EMA, dropout, stochastic depth
SEG = """
default_scope = "mmseg"
_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(40, 40), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(32, 32), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
_dataset = dict(
    type="BaseSegDataset",
    data_root={root!r},
    img_suffix=".png",
    seg_map_suffix="_mask.png",
    data_prefix=dict(img_path="images", seg_map_path="masks"),
    metainfo=dict(classes=("dark", "light"), palette=[(0, 0, 0), (255, 255, 255)]),
    pipeline=_pipeline,
)
_test = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
train_dataloader = dict(
    batch_size=3, num_workers=0, persistent_workers=True, sampler=dict(type="InfiniteSampler"), dataset=_dataset
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(_dataset, pipeline=_test),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor", mean=[127.0] * 3, std=[60.0] * 3, size=(32, 32), bgr_to_rgb=True
    ),
    backbone=dict(
        type="mst_transfer.TimmViT", arch="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2,
        num_heads=2, drop_path_rate=0.2, out_indices=(1,),
    ),
    decode_head=dict(
        type="FCNHead", in_channels=24, in_index=0, channels=8, num_convs=1, num_classes=2, dropout_ratio=0.1,
        norm_cfg=dict(type="BN", requires_grad=True),
    ),
    test_cfg=dict(mode="whole"),
)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=2, clip_grad=dict(max_norm=1.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=6),
    dict(type="PolyLR", eta_min=0.0, power=0.9, by_epoch=False, begin=6, end=45),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=45, val_interval=15)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
custom_hooks = [dict(type="EMAHook", momentum=0.1)]
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=3, max_keep_ckpts=3, save_best="mIoU"),
    logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
env_cfg = dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
"""

# Epochs with checkpoints inside them, batches of one aspect ratio, random samplers of boxes, several scales
DET = """
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"
default_scope = "mmdet"
_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomChoiceResize", scales=[(64, 48), (56, 40), (72, 56)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackDetInputs"),
]
_test = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 48), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
_dataset = dict(
    type="CocoDataset",
    data_root={root!r},
    ann_file="boxes.json",
    data_prefix=dict(img="images/"),
    metainfo=dict(classes=("square",), palette=[(220, 20, 60)]),
    filter_cfg=dict(filter_empty_gt=True, min_size=4),
    pipeline=_pipeline,
)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=True, sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"), dataset=_dataset,
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), drop_last=False,
    dataset=dict(_dataset, pipeline=_test, test_mode=True, indices=2),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="mst_transfer.CocoMetric", backend="pycocotools", ann_file={root!r} + "/boxes.json", metric=["bbox"]
)
test_evaluator = val_evaluator
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[60.0] * 3),
    backbone=dict(
        _delete_=True, type="mst_transfer.TimmViTPyramid", arch="vit_tiny_patch16_224", img_size=32, patch_size=8,
        embed_dim=24, depth=4, num_heads=2, drop_path_rate=0.2,
    ),
    neck=dict(in_channels=[24] * 4, out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16, anchor_generator=dict(scales=[4], ratios=[0.5, 1.0])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32, num_classes=1),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16, num_classes=1),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=32)), rpn_proposal=dict(nms_pre=64, max_per_img=32),
        rcnn=dict(sampler=dict(num=8)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=32, max_per_img=16), rcnn=dict(max_per_img=5)),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.001))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=6, milestones=[3, 5], gamma=0.1),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=6, val_interval=3)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2, max_keep_ckpts=2),
    logger=dict(type="LoggerHook", interval=1),
)
visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
env_cfg = dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
"""


def make_pictures(
    folder: Path,
    count: int = 11,
    sizes: Sequence[tuple[int, int]] = ((64, 48), (48, 64), (48, 64)),
    classes: Sequence[str] = ("square",),
    unlabelled: int = 0,
) -> None:
    """Light squares on dark ground, of these heights and widths in turn; boxes and polygons in COCO's format, masks.

    Up to ``unlabelled`` upper rows of each mask are 255.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(count):
        height, width = sizes[index % len(sizes)]
        x, y, side = int(rng.integers(0, 20)), int(rng.integers(0, 20)), int(rng.integers(14, 28))
        mask = np.zeros((height, width), np.uint8)
        mask[y : y + side, x : x + side] = 1
        noise = rng.integers(20, 60, (height, width, 3))
        picture = np.clip(mask[..., None] * 160 + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index:02d}.png"), picture)
        mask[: int(rng.integers(0, unlabelled)) if unlabelled else 0] = 255
        cv2.imwrite(str(folder / "masks" / f"{index:02d}_mask.png"), mask)
        images.append(dict(id=index, file_name=f"{index:02d}.png", width=width, height=height))
        corners = [x, y, x + side, y, x + side, y + side, x, y + side]
        box = dict(bbox=[x, y, side, side], area=side * side, iscrowd=0, segmentation=[corners])
        annotations.append(dict(box, id=index, image_id=index, category_id=1 + index % len(classes)))
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    (folder / "boxes.json").write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def write_config(task: str, folder: Path) -> Path:
    """Data and config of a task: ``pretrain``, ``seg`` or ``det``.

    pretrain: 30 steps, 6 an epoch, a checkpoint every 2. seg: 45 iterations, one step every 2, a checkpoint every 3.
    det: 36 iterations, 6 an epoch, a checkpoint every 2.
    """
    make_pictures(folder / "data", 24 if task == "pretrain" else 11)
    root = folder / "data" / "images" if task == "pretrain" else folder / "data"
    path = folder / f"tiny_{task}.py"
    path.write_text(dict(pretrain=PRETRAIN, seg=SEG, det=DET)[task].replace("{root!r}", repr(str(root))))
    return path


def command(task: str, config: Path, work_dir: Path, options: list[str], resume: bool) -> list[str]:
    """Words of the command line after its name."""
    words = [str(config), "--work-dir", str(work_dir), "--seed", "3", *(["--resume"] if resume else [])]
    return [*words, *(["--cfg-options", *options] if options else [])]


def entry(task: str) -> Callable[[list[str]], int]:
    """The command line's function, everything that it needs imported."""
    if task == "pretrain":
        from pretrain.run.train import main

        return main
    import importlib

    importlib.import_module("mst_transfer")  # first: it stands in for mmcv's compiled operators
    importlib.import_module("mmdet.datasets" if task == "det" else "mmseg.datasets")
    importlib.import_module("mmdet.models" if task == "det" else "mmseg.models")
    import mst_transfer.engine.resume.loops  # noqa: F401
    import mst_transfer.models.backbones  # noqa: F401
    from mst_transfer.cli.main import main as mst

    return lambda words: mst(["train", *words])
