"""Trains a head from a checkpoint on some of a task's labels, and keeps its outcome image by image."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.measures import MeanIoU, Measure, mean_ap
from mst_transfer.card.task_data import TaskData
from mst_transfer.card.tasks import DETECTION, Recipe, Task, load_task_config, only_indices, validate_on_training_images
from mst_transfer.configs.datasets import items
from mst_transfer.datasets.coco_columns import load_json
from mst_transfer.engine.fit.backbone import SHAPE, fit_to_backbone
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.probes.label_subset import label_subset

HELD_OUT = 0.2  # share of the labelled images that chooses the learning rate
CHOICE = "learning_rate.json"
_FIGURES = ("coco/segm_mAP", "coco/bbox_mAP", "mIoU")  # of a validation; the first that is there chooses


def head_outcomes(
    checkpoint: Checkpoint,
    task: Task,
    data: TaskData,
    recipe: Recipe,
    labels: str,
    seed: int,
    factors: Sequence[float],
    folder: Path,
    shared: Path,
) -> dict[str, Measure]:
    """Chooses the learning rate, trains, validates.

    Args:
        checkpoint, task, data, recipe, labels, seed: what to train.
        factors: of the recipe's learning rate, to choose among on held-out training images; one: none is chosen.
        folder: of this job; killed and called again, it goes on there.
        shared: folder of the choice, one for all seeds of this checkpoint, head and labels.

    Returns:
        Metric → outcome on the validation images.
    """
    chosen = label_subset(len(data.train), labels, seed).tolist()
    factor = factors[0]
    if len(factors) > 1:
        factor = _choose(checkpoint, task, data, recipe, chosen, seed, factors, shared)
    cfg = _config(checkpoint, task, recipe, chosen, len(data.train), seed, factor, folder / "run")
    if task.kind == DETECTION:
        for _, metric in items(cfg, "val_evaluator"):
            metric["outfile_prefix"] = str(folder / "val")
    else:
        counts = dict(type="mst_transfer.ImageCounts", out=str(folder / "counts.npz"))
        cfg.val_evaluator = [*(metric for _, metric in items(cfg, "val_evaluator")), counts]
    _train(cfg)
    if task.kind == DETECTION:
        return {name: _mean_ap(cfg, folder, kind) for name, kind in (("box mAP", "bbox"), ("mask mAP", "segm"))}
    with np.load(folder / "counts.npz") as arrays:
        return {"mIoU": MeanIoU(arrays["counts"], digest=data.val_digest())}


def check_head(checkpoint: Checkpoint, task: Task, recipe: Recipe) -> None:
    """Builds a head for a checkpoint, on no device.

    Raises:
        ValueError: it cannot be built, or does not take this backbone.
    """
    from mst_transfer.engine.check_model import check_model

    cfg = load_task_config(task, recipe)
    use_backbone(cfg, checkpoint)
    try:
        check_model(cfg, begins=True)
    except ValueError as error:
        raise ValueError(f"{recipe.name} cannot be trained from {checkpoint.name}: {error}") from error


def _mean_ap(cfg: Any, folder: Path, kind: str) -> Measure:
    metric = next(metric for _, metric in items(cfg, "val_evaluator"))
    results = folder / f"val.{kind}.json"
    found = json.loads(results.read_text()) if results.is_file() else []  # mmdet writes none without a detection
    return mean_ap(load_json(metric["ann_file"]), found, kind)


def _choose(
    checkpoint: Checkpoint,
    task: Task,
    data: TaskData,
    recipe: Recipe,
    chosen: Sequence[int],
    seed: int,
    factors: Sequence[float],
    shared: Path,
) -> float:
    """The factor whose head is best on images that it did not train on; chosen once, by whichever seed comes first."""
    shared.mkdir(parents=True, exist_ok=True)
    with FileLock(shared / ".lock"):
        if (shared / CHOICE).is_file():
            return float(json.loads((shared / CHOICE).read_text())["chosen"])
        held_out = [chosen[index] for index in label_subset(len(chosen), f"{HELD_OUT:.0%}", seed)]
        kept = [index for index in chosen if index not in set(held_out)]
        figures = {}
        for factor in factors:
            folder = shared / f"lr_x{factor:g}"
            metrics = _train(_config(checkpoint, task, recipe, kept, len(data.train), seed, factor, folder, held_out))
            found = next((metrics[name] for name in _FIGURES if metrics.get(name) is not None), None)
            figures[factor] = -math.inf if found is None else float(found)
        best = max(factors, key=lambda factor: figures[factor])
        content = dict(chosen=best, figures={f"{factor:g}": figures[factor] for factor in factors}, seed=seed)
        write_text_atomically(shared / CHOICE, json.dumps(content, indent=2))
        return best


def _config(
    checkpoint: Checkpoint,
    task: Task,
    recipe: Recipe,
    chosen: Sequence[int],
    num_train: int,
    seed: int,
    factor: float,
    work_dir: Path,
    held_out: Sequence[int] = (),
) -> Any:
    """The recipe's config for this backbone, its labels and its learning rate, with as many steps as for all labels.

    ``held_out``: training images that take the place of the validation images.
    """
    cfg = load_task_config(task, recipe, work_dir=str(work_dir), seed=seed, resume="auto")
    use_backbone(cfg, checkpoint)
    cfg.optim_wrapper.optimizer.lr *= factor
    if held_out:
        validate_on_training_images(cfg, held_out)
    dataset = only_indices(cfg.train_dataloader.dataset, chosen, cfg)
    times = max(1, round(num_train / len(chosen)))
    if times > 1 and cfg.train_cfg.get("max_epochs"):
        dataset = dict(type="RepeatDataset", times=times, dataset=dataset)
    cfg.train_dataloader.dataset = dataset
    return cfg


def use_backbone(cfg: Any, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's architecture, weights and normalisation into a config, and fits neck and heads to them."""
    backbone = cfg.model.backbone
    for name in SHAPE:
        backbone.pop(name, None)
    shape: dict[str, Any] = {"arch": checkpoint.arch}
    shape |= {name: value for name, value in checkpoint.arch_kwargs.items() if name != "drop_path_rate"}
    backbone.update(shape, checkpoint=None if checkpoint.is_random else checkpoint.path)
    fit_to_backbone(cfg, {f"model.backbone.{name}": value for name, value in shape.items()})
    for name in ("mean", "std"):
        cfg.model.data_preprocessor[name] = [255 * value for value in getattr(checkpoint, name)]


def _train(cfg: Any) -> dict[str, Any]:
    """Trains, or reads what an earlier call has measured."""
    from mst_transfer.engine.run import check_inputs, run_training

    results = Path(cfg.work_dir) / "results.json"
    if results.is_file():
        return dict(json.loads(results.read_text())["metrics"])
    check_inputs(cfg, training=True)
    return dict(run_training(cfg)["metrics"])
