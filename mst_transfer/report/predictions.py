"""Draws a trained head's predictions on validation images beside the truth.

Images ``[H, W, 3]`` uint8 RGB, masks ``[H, W]`` bool, label maps ``[H, W]`` int64, boxes ``(x0, y0, x1, y1)``
in pixels of the image file.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.report.collect import Run

Colour = tuple[int, int, int]
IGNORED = 255


@dataclass(frozen=True)
class Instance:
    """A box with its mask and class; ``score`` is None for the truth."""

    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]
    label: int
    score: float | None = None


@dataclass(frozen=True)
class Prediction:
    """One validation image, what is in it, and what was found.

    Attributes:
        name: the image's file name.
        image: the image.
        truth: instances, or a label map.
        found: the same, predicted.
    """

    name: str
    image: NDArray[np.uint8]
    truth: Any
    found: Any


@dataclass(frozen=True)
class Predictions:
    """Predictions of one run, on the same images as its siblings."""

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    items: tuple[Prediction, ...]


def spread(total: int, wanted: int) -> list[int]:
    """Indices of ``wanted`` of ``total`` images, evenly spaced: they are not chosen by their looks."""
    wanted = min(wanted, total)
    return [(2 * k + 1) * total // (2 * wanted) for k in range(wanted)]


def predict(run: Run, num_images: int, min_score: float = 0.3) -> Predictions:
    """Run a trained head on some of its validation images, on the CPU.

    Args:
        run: a run with a config and a checkpoint.
        num_images: how many images.
        min_score: instances below it are left out.

    Raises:
        ValueError: the run's task is neither detection nor segmentation.
    """
    if run.task not in ("det", "seg"):
        raise ValueError(f"only runs of 'det' and 'seg' predict, got a run of {run.task!r} in {run.folder}")
    assert run.config is not None and run.checkpoint is not None
    from mmengine.registry import init_default_scope

    cfg = copy.deepcopy(run.config)
    init_default_scope(cfg.get("default_scope", "mmdet" if run.task == "det" else "mmseg"))
    with warnings.catch_warnings():  # the libraries' notes to their own developers
        warnings.filterwarnings("ignore", category=UserWarning, module=r"mm(det|seg|cv|engine)\.")
        dataset, model = _build(cfg, run.checkpoint)
        indices = spread(len(dataset), num_images)
        items = tuple(_predict_one(model, dataset, index, run.task, min_score) for index in indices)
    classes = tuple(dataset.metainfo["classes"])
    return Predictions(classes, _palette(dataset.metainfo.get("palette"), len(classes)), items)


def _build(cfg: Any, checkpoint: Path) -> tuple[Any, Any]:
    """The validation images, and the model with its weights."""
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import DATASETS, MODELS
    from mmengine.runner import load_checkpoint

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        dataset.full_init()
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    load_checkpoint(model, str(checkpoint), map_location="cpu", strict=True, logger="silent")
    return dataset, model.eval()


def _predict_one(model: Any, dataset: Any, index: int, task: str, min_score: float) -> Prediction:
    import torch
    from mmengine.dataset import pseudo_collate

    info = dataset.get_data_info(index)
    image = _read_image(Path(info["img_path"]))
    with torch.no_grad():
        sample = model.test_step(pseudo_collate([dataset[index]]))[0]
    if task == "det":
        truth: Any = _true_instances(info, image.shape[:2])
        found: Any = _found_instances(sample.pred_instances, min_score)
    else:
        truth = _true_label_map(info)
        found = sample.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.int64)
    return Prediction(Path(info["img_path"]).name, image, truth, found)


def _read_image(path: Path) -> NDArray[np.uint8]:
    from mst_transfer.datasets.load_image import LoadImage

    image = LoadImage()(dict(img_path=str(path)))["img"]  # or UnreadableImageError, which names the file
    return np.ascontiguousarray(image[..., ::-1])


def _true_instances(info: dict[str, Any], shape: tuple[int, int]) -> list[Instance]:
    from pycocotools import mask as coco_mask

    instances = []
    for entry in info["instances"]:
        if entry.get("ignore_flag"):
            continue
        segmentation = entry["mask"]
        if isinstance(segmentation, list):
            segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, *shape))
        elif isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, *shape)
        mask = coco_mask.decode(segmentation).astype(bool)
        instances.append(Instance(tuple(entry["bbox"]), mask, int(entry["bbox_label"])))
    return instances


def _found_instances(found: Any, min_score: float) -> list[Instance]:
    found = found[found.scores >= min_score].cpu()
    masks = found.masks.numpy().astype(bool)
    rows = zip(found.bboxes.tolist(), masks, found.labels.tolist(), found.scores.tolist(), strict=True)
    return [Instance(tuple(box), mask, int(label), float(score)) for box, mask, label, score in rows]


def _true_label_map(info: dict[str, Any]) -> NDArray[np.int64]:
    from mmseg.datasets.transforms import LoadAnnotations

    loaded = LoadAnnotations(imdecode_backend="pillow")(dict(info, seg_fields=[]))
    return np.asarray(loaded["gt_seg_map"], dtype=np.int64)


def _palette(given: Sequence[Sequence[int]] | None, count: int) -> tuple[Colour, ...]:
    if given is not None and len(given) >= count:
        return tuple((int(r), int(g), int(b)) for r, g, b in given[:count])
    import matplotlib

    colours = [matplotlib.colormaps["tab20"](k % 20) for k in range(count)]
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b, _ in colours)
