"""Training and testing through the command line in one process of a group, and what they did: for ``run_group``."""

import json
from pathlib import Path
from typing import Any

import torch

Job = tuple[str, list[str]]


class Recorder:
    """A hook's worth of memory: which images a process trained on, as they came out of the pipeline, and losses."""

    def __init__(self) -> None:
        self.images: list[list[str]] = []
        self.pixels: list[list[float]] = []
        self.losses: list[dict[str, float]] = []

    def before(self, runner: Any, data_batch: dict) -> None:
        self.images.append([Path(sample.img_path).name for sample in data_batch["data_samples"]])
        weights = torch.linspace(0.5, 1.5, data_batch["inputs"][0].numel(), dtype=torch.float64)
        self.pixels.append([float(image.double().flatten() @ weights) for image in data_batch["inputs"]])

    def after(self, outputs: dict[str, torch.Tensor]) -> None:
        self.losses.append({name: float(value) for name, value in outputs.items()})


def run_jobs(jobs: list[Job], launcher: str) -> list[dict[str, Any]]:
    """Runs ``mst train`` and ``mst test`` one after the other.

    Args:
        jobs: Verb and words; ``--work-dir`` is the last word but one.
        launcher: ``none`` or ``pytorch``.

    Returns:
        Of each: its metrics, and of a training the images, losses and the final weights and buffers of this process.
    """
    from mmengine.hooks import Hook

    from mst_transfer.cli.main import main
    from mst_transfer.engine import run
    from mst_transfer.runs import launch

    leave, build = launch.shutdown_distributed, run.build_runner
    launch.shutdown_distributed = lambda: None  # one group serves all jobs
    kept: dict[str, Any] = {}

    def build_and_record(*args: Any) -> Any:
        runner, recorder = build(*args), Recorder()

        class RecordHook(Hook):
            def before_train_iter(self, runner, batch_idx, data_batch=None):
                recorder.before(runner, data_batch)

            def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
                recorder.after(outputs)

        runner.register_hook(RecordHook())
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
