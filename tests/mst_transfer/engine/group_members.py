"""Functions for ``run_group``: what each process of a group does, and returns."""

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import Hook

from mst_transfer.runs import launch
from mst_transfer.runs.checkpoint_hook import CheckpointNotSavedError, SafeCheckpointHook
from mst_transfer.runs.checkpoints import find_checkpoint
from mst_transfer.runs.unreadable_images import (
    TooManyUnreadableError,
    UnreadableImagesHook,
    append_to_list,
    list_of_rank,
)

Job = tuple[str, list[str]]


class Recorder(Hook):
    """Notes which images a process trains on, as they come out of the pipeline, and losses."""

    def __init__(self) -> None:
        self.images: list[list[str]] = []
        self.pixels: list[list[float]] = []
        self.losses: list[dict[str, float]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.images.append([Path(sample.img_path).name for sample in data_batch["data_samples"]])
        weights = torch.linspace(0.5, 1.5, data_batch["inputs"][0].numel(), dtype=torch.float64)
        self.pixels.append([float(image.double().flatten() @ weights) for image in data_batch["inputs"]])

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses.append({name: float(value) for name, value in outputs.items()})


def run_jobs(jobs: list[Job], launcher: str) -> list[dict[str, Any]]:
    """Runs ``mst train`` and ``mst test`` one after the other.

    Args:
        jobs: Verb and words; ``--work-dir`` is the last word but one.
        launcher: ``none`` or ``pytorch``.

    Returns:
        Of each: its metrics, and of a training the images, losses and the final weights and buffers of this process.
    """
    from mst_transfer.cli.main import main
    from mst_transfer.engine import run

    leave, build = launch.shutdown_distributed, run.build_runner
    launch.shutdown_distributed = lambda: None  # one group serves all jobs
    kept: dict[str, Any] = {}

    def build_and_record(*args: Any) -> Any:
        runner, recorder = build(*args), Recorder()
        runner.register_hook(recorder)
        kept.update(runner=runner, recorder=recorder)
        return runner

    run.build_runner = build_and_record
    done = []
    for verb, words in jobs:
        assert main([verb, *words, "--launcher", launcher]) == 0, (verb, words)
        model, recorder = kept["runner"].model, kept["recorder"]
        outcome: dict[str, Any] = {}
        if launch.rank() == 0:
            outcome["metrics"] = json.loads((Path(words[-1]) / "results.json").read_text())["metrics"]
        if verb == "train":
            state = {name.removeprefix("module."): tensor.clone() for name, tensor in model.state_dict().items()}
            outcome.update(state=state, **vars(recorder))
        done.append(outcome)
        kept.clear()
        del model
    leave()
    return done


def choose_together(work_dir: str) -> list[str]:
    """In each process: what --resume takes, and what is raised where it cannot."""
    dist.init_process_group("gloo")
    seen = [str(find_checkpoint(work_dir, "auto"))]
    for resume in (f"{work_dir}/epoch_2.pth", f"{work_dir}/epoch_9.pth"):
        try:
            find_checkpoint(work_dir, resume)
        except (ValueError, FileNotFoundError) as error:
            seen.append(str(error))

    def fail() -> None:
        assert os.environ["RANK"] == "0"
        raise OSError(28, "No space left on device")

    try:
        SafeCheckpointHook(interval=1)._together(fail)
    except CheckpointNotSavedError as error:
        seen.append(str(error))
    dist.destroy_process_group()
    return seen


def read_lists_together(work_dir: Path, max_share: float) -> tuple[Any, str]:
    """Each process's workers name one unreadable file of their own, and all one in common."""
    from mmengine.logging import MessageHub

    launch.init_distributed("pytorch")
    rank, hook = launch.rank(), UnreadableImagesHook(max_share, min_unreadable=0)
    runner = SimpleNamespace(
        work_dir=str(work_dir),
        iter=0,
        epoch=0,
        logger=logging.getLogger("test"),
        message_hub=MessageHub.get_instance(f"hub of {work_dir}"),
        train_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=range(100))),
    )
    hook.before_train(runner)
    for name in (f"{rank}.jpg", "common.jpg"):
        append_to_list(list_of_rank(str(work_dir), rank), name, "reason")
    try:
        hook.after_train_iter(runner, 0)
        hook.after_train_epoch(runner)
    except TooManyUnreadableError as error:
        return None, str(error)
    hook.after_train(runner)
    return runner.message_hub.get_info("unreadable_images"), ""
