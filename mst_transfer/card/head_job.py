"""Trains a head from a checkpoint on some of a task's labels, and keeps its outcome image by image."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.job_pictures import save_head
from mst_transfer.card.measures import MeanIoU, Measure, mean_ap
from mst_transfer.card.outcomes import Key
from mst_transfer.card.plan import Job, Plan, job_folder
from mst_transfer.card.task_data import TaskData
from mst_transfer.card.tasks import DETECTION, Recipe, Task, load_task_config, only_indices, validate_on_training_images
from mst_transfer.configs.datasets import items
from mst_transfer.datasets.coco_columns import load_json
from mst_transfer.engine.fit.backbone import SHAPE, fit_to_backbone
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.preflight.evaluators import evaluates_masks
from mst_transfer.probes.labelled_images import label_subset

HELD_OUT = 0.2  # share of the labelled images that chooses the learning rate
CHOICE = "learning_rate.json"
_FIGURES = ("coco/segm_mAP", "coco/bbox_mAP", "mIoU")  # of a validation; the first that is there chooses


def head_outcomes(plan: Plan, job: Job, data: TaskData, folder: Path) -> Iterator[tuple[Key, Measure]]:
    """Chooses the learning rate, trains, validates; killed and called again, it goes on in the card's ``folder``."""
    (seed,), (labels,), out = job.seeds, job.labels, job_folder(folder, job)
    chosen = label_subset(len(data.train), labels, seed).tolist()
    factors = plan.options.factors
    factor = _choose(plan, job, data, folder / "jobs" / job.choice) if len(factors) > 1 else factors[0]
    cfg = _config(plan, job, data, chosen, factor, out / "run")
    metrics = [metric for _, metric in items(cfg, "val_evaluator")]
    is_detection = plan.task(job.task).kind == DETECTION
    if is_detection:
        for metric in metrics:
            metric["outfile_prefix"] = str(out / "val")
    else:
        cfg.val_evaluator = [*metrics, dict(type="mst_transfer.ImageCounts", out=str(out / "counts.npz"))]
    _train(cfg)
    if is_detection:
        content = load_json(metrics[0]["ann_file"])
        annotations = _learned(content, [image.name for image in data.val], data.objects)
        found: dict[str, Measure] = {
            name: mean_ap(annotations, _results(out / f"val.{kind}.json"), kind)
            for name, kind in (("box mAP", "bbox"), ("mask mAP", "segm"))
            if kind == "bbox" or evaluates_masks(cfg, "val_dataloader")
        }
    else:
        with np.load(out / "counts.npz") as arrays:
            found = {"mIoU": MeanIoU(arrays["counts"], digest=data.val_digest())}
    for name, measure in found.items():
        yield Key(job.task, name, job.recipe, labels, job.checkpoint, seed), measure
    if seed == plan.options.tune_seeds[0]:
        title = f"{job.task}: {job.recipe}, {labels} labels"
        save_head(folder / "pictures" / job.id, title, data, plan.checkpoint(job.checkpoint), out / "run")


def _learned(content: dict[str, Any], ids: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """COCO's annotations of these images, in this order, and classes alone: what a config leaves out is not missed."""
    known = {image["id"]: image for image in content["images"]}
    categories = [one for one in content["categories"] if one["name"] in classes]
    images, numbers = set(ids), {one["id"] for one in categories}
    annotations = [one for one in content["annotations"] if one["image_id"] in images and one["category_id"] in numbers]
    return {**content, "images": [known[key] for key in ids], "categories": categories, "annotations": annotations}


def _results(path: Path) -> Any:
    """Detections in COCO's format; mmdet writes no file without one."""
    return json.loads(path.read_text()) if path.is_file() else []


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


def _choose(plan: Plan, job: Job, data: TaskData, shared: Path) -> float:
    """The factor that is best on images that its head did not see; chosen once, on the labels of seed 0, for all.

    Of equally good ones that nearest to the recipe's learning rate.
    """
    seed, (labels,), figures = 0, job.labels, dict[float, float]()
    job, chosen = replace(job, seeds=[seed]), label_subset(len(data.train), labels, seed).tolist()
    shared.mkdir(parents=True, exist_ok=True)
    with FileLock(shared / ".lock"):
        if (shared / CHOICE).is_file():
            return float(json.loads((shared / CHOICE).read_text())["chosen"])
        held_out = [chosen[index] for index in label_subset(len(chosen), f"{HELD_OUT:.0%}", seed)]
        kept = [index for index in chosen if index not in set(held_out)]
        for factor in plan.options.factors:
            metrics = _train(_config(plan, job, data, kept, factor, shared / f"lr_x{factor:g}", held_out))
            known = [metrics[name] for name in _FIGURES if metrics.get(name) is not None]
            figures[factor] = float(known[0]) if known else -math.inf
        best = max(figures, key=lambda factor: (figures[factor], -abs(math.log(factor))))
        content = dict(chosen=best, figures={f"{factor:g}": figure for factor, figure in figures.items()}, seed=seed)
        write_text_atomically(shared / CHOICE, json.dumps(content, indent=2))
        return best


def _config(
    plan: Plan, job: Job, data: TaskData, kept: Sequence[int], factor: float, folder: Path, held_out: Sequence[int] = ()
) -> Any:
    """The recipe's config for this backbone, its labels and its learning rate, with as many steps as for all labels.

    ``held_out``: training images that take the place of the validation images.
    """
    task = plan.task(job.task)
    recipe = next(recipe for recipe in task.recipes if recipe.name == job.recipe)
    cfg = load_task_config(task, recipe, quiet=False, work_dir=str(folder), seed=job.seeds[0], resume="auto")
    use_backbone(cfg, plan.checkpoint(job.checkpoint))
    cfg.optim_wrapper.optimizer.lr *= factor
    if held_out:
        validate_on_training_images(cfg, held_out)
    whole, parts = cfg.train_dataloader.dataset, [only_indices(cfg.train_dataloader.dataset, kept, cfg)]
    times, rest = divmod(len(data.train), len(kept))
    if cfg.train_cfg.get("max_epochs") and len(kept) < len(data.train):
        parts[0] = dict(type="RepeatDataset", times=times, dataset=parts[0])
        parts += [only_indices(whole, kept[:rest], cfg)] if rest else []
    cfg.train_dataloader.dataset = parts[0] if len(parts) == 1 else dict(type="ConcatDataset", datasets=parts)
    _validate_once(cfg)
    return cfg


def _validate_once(cfg: Any) -> None:
    """Leaves out validations before the last, of which a card keeps nothing, unless they steer the training."""
    parts = [part for name in ("custom_hooks", "param_scheduler") for _, part in items(cfg, name)]
    names = [str(part.get("type")).split(".")[-1] for part in parts]
    if not any(name == "EarlyStoppingHook" or name.startswith("ReduceOnPlateau") for name in names):
        train = cfg.train_cfg
        train.pop("dynamic_intervals", None)
        train.update(val_begin=1, val_interval=train.get("max_iters") or train.max_epochs)


def use_backbone(cfg: Any, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's architecture, weights and normalisation into a config, and fits neck and heads to them."""
    backbone = cfg.model.backbone
    for name in SHAPE:
        backbone.pop(name, None)
    own = ["drop_path_rate"]  # of the recipe; so is the grid of a ViT's positions, the same for every checkpoint
    own += ["img_size"] if "img_size" in backbone and not checkpoint.arch.startswith("swin") else []
    shape: dict[str, Any] = {"arch": checkpoint.arch}
    shape |= {name: value for name, value in checkpoint.arch_kwargs.items() if name not in own}
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
