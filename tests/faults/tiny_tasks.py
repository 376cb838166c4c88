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
optim_wrapper = dict(dtype=None)
train_cfg = dict(max_epochs=5, accumulation_steps=2, schedule=dict(warmup_epochs=1, base_lr=0.05))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=2))
visualizer = dict(vis_backends=[dict(type="mmengine.LocalVisBackend")])
"""

# Epochs of segmentation, a ResNet
TINY_SEG = """
default_scope = "mmseg"
_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
_dataset = dict(
    type="BaseSegDataset",
    data_root={root!r},
    data_prefix=dict(img_path="images", seg_map_path="masks"),
    metainfo=dict(classes=("dark", "light"), palette=[(0, 0, 0), (255, 255, 255)]),
    pipeline=_pipeline,
)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=True, sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=_dataset,
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), dataset=_dataset
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor", mean=[127.0] * 3, std=[60.0] * 3, size=(32, 32), bgr_to_rgb=True
    ),
    backbone=dict(type="ResNet", depth=18, base_channels=4, norm_cfg=dict(type="SyncBN", requires_grad=True)),
    decode_head=dict(
        type="FCNHead", in_channels=32, in_index=3, channels=8, num_convs=1, num_classes=2,
        norm_cfg=dict(type="SyncBN", requires_grad=True), dropout_ratio=0.0,
    ),
    test_cfg=dict(mode="whole"),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01))
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", interval=1), logger=dict(type="LoggerHook", interval=1)
)
env_cfg = dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
"""

# Iterations, endless sampler, accumulation over checkpoints, EMA, dropout, stochastic depth
SEG = (
    TINY_SEG
    + """
_pipeline[2:2] = [
    dict(type="RandomResize", scale=(40, 40), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(32, 32), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
]
train_dataloader.update(batch_size=3, sampler=dict(type="InfiniteSampler"))
val_dataloader["dataset"] = dict(_dataset, pipeline=[_pipeline[0], _pipeline[1], _pipeline[-1]])
model["backbone"] = dict(
    type="mst_transfer.TimmViT", arch="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2,
    num_heads=2, drop_path_rate=0.2, out_indices=(1,),
)
model["decode_head"].update(
    in_channels=24, in_index=0, dropout_ratio=0.1, norm_cfg=dict(type="BN", requires_grad=True)
)
optim_wrapper.update(accumulative_counts=2, clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=6),
    dict(type="PolyLR", eta_min=0.0, power=0.9, by_epoch=False, begin=6, end=45),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=45, val_interval=15)
custom_hooks = [dict(type="EMAHook", momentum=0.1)]
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=3, max_keep_ckpts=3, save_best="mIoU"),
    logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
"""
)

# Epochs with checkpoints inside them, batches of one aspect ratio, random samplers of boxes, several scales
DET = """
_base_ = "mst_transfer::det_configs/mst_maskrcnn_sample.py"
_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomChoiceResize", scales=[(64, 48), (56, 40), (72, 56)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackDetInputs"),
]
_dataset = dict(
    data_root={root!r},
    ann_file="boxes.json",
    data_prefix=dict(img="images/"),
    metainfo=dict(classes=("square",), palette=[(220, 20, 60)]),
    filter_cfg=dict(min_size=4),
)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(_dataset, pipeline=_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(_dataset, indices=2))
test_dataloader = val_dataloader
val_evaluator = dict(backend="pycocotools", ann_file={root!r} + "/boxes.json", metric=["bbox"])
test_evaluator = val_evaluator
model = dict(
    backbone=dict(img_size=32, embed_dim=24, num_heads=2, drop_path_rate=0.2, checkpoint=None),
    neck=dict(in_channels=[24] * 4, out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16, anchor_generator=dict(ratios=[0.5, 1.0])),
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
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=6, milestones=[3, 5], gamma=0.1),
]
train_cfg = dict(max_epochs=6, val_interval=3)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=2), logger=dict(interval=1))
visualizer = dict(_delete_=True, type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])  # one a run
"""


def make_pictures(
    folder: Path,
    count: int,
    sizes: Sequence[tuple[int, int]] = ((64, 48), (48, 64), (48, 64)),
    sides: tuple[int, int] = (14, 28),
    classes: Sequence[str] = ("square",),
    unlabelled: int = 0,
) -> None:
    """Light squares on dark ground; their masks, and boxes and polygons in COCO's format.

    Args:
        folder: new; gets ``images/``, ``masks/`` and ``boxes.json``.
        count: pictures.
        sizes: height and width of one after the other, again and again.
        sides: the least and greatest side of a square.
        classes: of one after the other, in the boxes.
        unlabelled: less than so many upper rows of each mask are 255.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(count):
        height, width = sizes[index % len(sizes)]
        x, y = rng.integers(0, min(*sizes[0]) - sides[1], 2).tolist()
        side = int(rng.integers(sides[0], sides[1] + 1))
        mask = np.zeros((height, width), np.uint8)
        mask[y : y + side, x : x + side] = 1
        picture = np.clip(mask[..., None] * 160 + rng.integers(20, 60, (height, width, 3)), 0, 255).astype(np.uint8)
        mask[: int(rng.integers(0, unlabelled)) if unlabelled else 0] = 255
        cv2.imwrite(str(folder / "images" / f"{index}.jpg"), picture)
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), mask)
        images.append(dict(id=index, file_name=f"{index}.jpg", width=width, height=height))
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
