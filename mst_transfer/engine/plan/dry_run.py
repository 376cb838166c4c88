"""A dry run: a few real steps at the largest shape, for the time, memory and faults of the whole run.

Nothing is kept: logs go to a temporary folder, no checkpoint is written, the work dir is not made.
"""

import copy
import math
import tempfile
import time
from bisect import bisect
from typing import Any

import torch
from mmengine.runner.utils import calc_dynamic_intervals
from torch.utils.data import Subset

from mst_transfer.engine.plan import batch_plan
from mst_transfer.engine.plan.dry_run_report import DryRunReport, out_of_memory_advice
from mst_transfer.engine.plan.largest_shape import at_largest_shape, largest_images
from mst_transfer.engine.plan.meters import PeakMemory, StepClock, now
from mst_transfer.engine.plan.unfinished_schedules import unfinished_schedules
from mst_transfer.engine.resume.loops import validation_is_due
from mst_transfer.engine.run import RunRefusedError, build_runner, refusals
from mst_transfer.runs import launch
from mst_transfer.runs.resuming_runner import close_logs

_NUM_TIMED_LOADS = 4
_NUM_LOOKED_AT = 32  # images, for one that validation resizes


def dry_run(cfg: Any, num_steps: int = 3) -> DryRunReport:
    """Builds everything, takes training steps and one of validation, on the largest images of the config's pipeline.

    At least one optimizer step comes before the last one, so that its state counts.

    Args:
        cfg: from ``load_run_config``; changed in place, not fit for a run afterwards.
        num_steps: batches to train on.

    Raises:
        RunRefusedError: if a model or checkpoint is refused, memory is too small, or a loss is not finite; the
            message says what to change.
    """
    launch.init_distributed(cfg.launcher)
    try:
        batch = batch_plan.plan_batch(cfg, launch.world_size())
        batch_plan.check_batch_norm(cfg, batch)
        notices = batch_plan.apply_batch_plan(cfg, batch)
    except ValueError as error:
        raise RunRefusedError(str(error)) from error
    num_steps = max(num_steps, batch.accumulation + 1)
    recipe = copy.deepcopy(cfg)
    with tempfile.TemporaryDirectory(prefix="mst_dry_run_") as folder:
        _keep_nothing(cfg, folder)
        try:
            with refusals(cfg):
                report = _measure(cfg, num_steps, recipe, notices)
        except (RuntimeError, MemoryError) as error:
            advice = out_of_memory_advice(cfg, error)
            if advice is None:
                raise
            raise RunRefusedError(advice) from error
        finally:
            close_logs(folder)
    num_epochs = recipe.train_cfg.get("max_epochs")
    report.facts += unfinished_schedules(cfg, report.num_steps_of_run, num_epochs, batch.stretch)
    launch.shutdown_distributed()
    wrong = [f"{name}={value}" for step in report.losses for name, value in step.items() if not math.isfinite(value)]
    if wrong:
        raise RunRefusedError(
            f"dry run: losses that are not finite: {', '.join(wrong)}. Lower the learning rate or leave --amp out, and "
            "check the data with: mst check"
        )
    return report


def _keep_nothing(cfg: Any, folder: str) -> None:
    """No checkpoints, no pictures, no validation inside the loop; logs only in ``folder``."""
    cfg.work_dir = folder
    cfg.experiment_name = f"dry_run_{time.monotonic_ns()}"
    cfg.log_level = "WARNING"
    cfg.resume = False
    hooks = {name: hook for name, hook in (cfg.get("default_hooks") or {}).items() if name != "visualization"}
    cfg.default_hooks = dict(hooks, checkpoint=None)
    cfg.custom_hooks = [
        hook for hook in cfg.get("custom_hooks") or () if str(hook.get("type")).split(".")[-1] != "EarlyStoppingHook"
    ]
    visualizer = dict(cfg.get("visualizer") or dict(type="Visualizer"))
    cfg.visualizer, cfg.track = dict(visualizer, vis_backends=[]), []
    for key in ("val_dataloader", "val_cfg", "val_evaluator", "test_dataloader", "test_cfg", "test_evaluator"):
        cfg[key] = None


def _measure(cfg: Any, num_steps: int, recipe: Any, notices: list[str]) -> DryRunReport:
    """Trains at the largest shape and validates once; ``recipe`` is the config as it was before it was changed."""
    memory = PeakMemory()
    at_largest_shape(cfg.train_dataloader["dataset"])
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=num_steps, val_interval=num_steps + 1)
    runner = build_runner(cfg, notices)
    loader = runner.build_dataloader(cfg.train_dataloader, seed=runner.seed)
    dataset, batch_size, num_batches = loader.dataset, cfg.train_dataloader.get("batch_size", 1), len(loader)
    indices = largest_images(dataset, batch_size * num_steps * runner.world_size)
    runner._train_dataloader = _with_indices(runner, cfg.train_dataloader, dataset, indices)
    runner._train_loop = dict(cfg.train_cfg)
    clock = StepClock()
    runner.register_hook(clock)
    runner.train()
    loop = recipe.train_cfg
    report = DryRunReport(
        config=str(cfg.filename),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        world_size=runner.world_size,
        num_workers=cfg.train_dataloader.get("num_workers", 0),
        accumulation=cfg.optim_wrapper.get("accumulative_counts", 1),
        num_steps_of_run=loop.get("max_iters") or loop.max_epochs * num_batches,
        input_shapes=clock.shapes,
        step_seconds=clock.seconds,
        losses=clock.losses,
        load_seconds=_time_loading(dataset, indices[:_NUM_TIMED_LOADS]) * batch_size,
        train_memory=memory.read(),
        facts=notices,
    )
    if recipe.get("val_dataloader") is not None:
        memory.reset()
        report.val_seconds, report.num_val_batches = _validate(runner, recipe)
        report.val_memory, report.num_validations = memory.read(), _num_validations(loop)
    return report


def _with_indices(runner: Any, loader_cfg: Any, dataset: Any, indices: list[int]) -> Any:
    """The config's loader over chosen images, in their order."""
    subset = Subset(dataset, indices)
    subset.metainfo = dataset.metainfo  # type: ignore[attr-defined]
    loader = dict(loader_cfg, dataset=subset, sampler=dict(type="DefaultSampler", shuffle=False))
    loader.pop("batch_sampler", None)
    return runner.build_dataloader(loader, seed=runner.seed)


def _num_validations(train_cfg: Any) -> int:
    """Validations of a whole run."""
    last, begin = train_cfg.get("max_iters") or train_cfg["max_epochs"], train_cfg.get("val_begin", 1)
    milestones, intervals = calc_dynamic_intervals(train_cfg.get("val_interval", 1), train_cfg.get("dynamic_intervals"))
    return sum(
        validation_is_due(done, last, begin, intervals[bisect(milestones, done + 1) - 1]) for done in range(1, last + 1)
    )


def _validate(runner: Any, recipe: Any) -> tuple[float, int]:
    """Seconds of one validation batch with the largest image, its metric included, and the number of batches.

    If the test pipeline has left that image's size as it is, one that it resizes follows, if there is any.
    """
    loader = runner.build_dataloader(recipe.val_dataloader, seed=runner.seed)
    chosen = largest_images(loader.dataset, recipe.val_dataloader.get("batch_size", 1))
    batch = loader.collate_fn([loader.dataset[index] for index in chosen])
    evaluator = runner.build_evaluator(recipe.val_evaluator) if recipe.get("val_evaluator") else None
    runner.model.eval()
    if evaluator is not None:
        evaluator.dataset_meta = loader.dataset.metainfo
    batches = [batch] if _is_resized(batch) else [batch, *_resized_batches(loader)]
    seconds = []
    for one in batches:
        started = now()
        with torch.no_grad():
            outputs = runner.model.val_step(one)
        if evaluator is not None:
            evaluator.process(data_samples=outputs, data_batch=one)
        seconds.append(now() - started)
    return seconds[0], len(loader)


def _is_resized(batch: Any) -> bool:
    """Whether the pipeline has changed the size of an image of a batch."""
    samples = batch.get("data_samples", ()) if isinstance(batch, dict) else ()
    return any(sample.get("img_shape") != sample.get("ori_shape") for sample in samples)


def _resized_batches(loader: Any) -> list[Any]:
    """One image that the pipeline resizes; none if there is none among those looked at."""
    length = len(loader.dataset)
    for index in range(0, length, max(length // _NUM_LOOKED_AT, 1)):
        batch = loader.collate_fn([loader.dataset[index]])
        if _is_resized(batch):
            return [batch]
    return []


def _time_loading(dataset: Any, indices: list[int]) -> float:
    """Seconds that this process takes to load one image."""
    dataset[indices[0]]
    started = time.perf_counter()
    for index in indices:
        dataset[index]
    return (time.perf_counter() - started) / len(indices)
