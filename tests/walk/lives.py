"""The life of a recipe: its config with a narrow net, the command line's verbs in this process, and what was seen."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from narrow_nets import narrow_pretraining, narrow_transfer

from mst_transfer.engine.nonfinite import GuardedOptimWrapper

ROOT = Path(__file__).resolve().parents[2]
FULL_NETS = ("sample", "mini", "camvid", "photos", "study")  # small as they are


@HOOKS.register_module(force=True)
class StopAfterHook(Hook):
    """Sends this process SIGTERM after so many steps of the process, as a scheduler does when time is up."""

    priority = "VERY_HIGH"

    def __init__(self, steps: int) -> None:
        self.left = steps

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


class Life:
    """One recipe, from check to figure.

    Args:
        name: path of the recipe below the checkout.
        folder: its own folder, for the config and the runs.
        record: called with each stage that is done, besides ``stages``.
    """

    def __init__(self, name: str, folder: Path, record: Callable[[str], None] | None = None) -> None:
        self.name, self.folder, self.record = name, folder, record
        self.stem = name.removesuffix(".py").split("configs/", 1)[1].replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        self.work_dir = folder / self.stem
        self.stages: list[str] = []

    def config(self, **changes: Any) -> Path:
        """The recipe with a narrow net, and with changes, as a file; everything else is inherited."""
        cfg = Config.fromfile(ROOT / self.name)
        model = cfg.model
        model.update(changes.pop("model", {}))
        if not any(word in self.name for word in FULL_NETS):
            (narrow_pretraining if self.name.startswith("pretrain") else narrow_transfer)(model)
        if "checkpoint" in model.backbone and is_published(model.backbone.checkpoint):
            model.backbone.checkpoint = None
        path = self.folder / f"{self.stem}.py"
        lines = [f"_base_ = {str(ROOT / self.name)!r}", f"model = {dict(_delete_=True, **model.to_dict())!r}"]
        lines += [f"{key} = {value!r}" for key, value in changes.items()]
        path.write_text("\n".join(lines) + "\n")
        return path

    def done(self, stage: str) -> None:
        """Notes a stage."""
        self.stages.append(stage)
        if self.record is not None:
            self.record(stage)

    def results(self, folder: str = "") -> dict[str, Any]:
        """The content of ``results.json``."""
        content: dict[str, Any] = json.loads((self.work_dir / folder / "results.json").read_text())
        return content


def learn(
    life: Life, config: Path, images: list[str], options: list[Any], counts: tuple[str, int, int], row: str
) -> None:
    """Trains to a first count of iterations or epochs, resumes to a second, and tests: each time on all images.

    Figures are those of the last validation wherever they stand; ``row`` is what they look like on the screen.
    """
    length, first, then = counts
    begun = Config.fromfile(ROOT / life.name).model.backbone.checkpoint
    begun = "random" if begun is None or is_published(begun) else begun
    with watched_evaluation() as evaluations, all_parameters_learning():
        assert run("train", config, *options, f"train_cfg.{length}={first}") == 0
        assert checkpoints(life) and life.results()["checkpoint"] == begun
        life.done("train")
        assert len(evaluations) == 2 and same_files(evaluations[0], images)
        life.done("validate")
        before = life.results()["metrics"]
        assert run("train", config, "--resume", *options, f"train_cfg.{length}={then}") == 0
        assert life.results()["resumed"] and all(same_files(seen, images) for seen in evaluations[:-1])
        life.done("resume")
    trained = life.results()["metrics"]
    assert set(trained) == set(before)
    with watched_evaluation() as evaluations, redirect_stdout(StringIO()) as screen:
        assert run("test", config, checkpoints(life)[-1], "--work-dir", life.work_dir / "test") == 0
    assert same_files(evaluations[0], images)
    assert life.results("test")["metrics"] == trained  # of the same weights
    assert dict(re.findall(row, screen.getvalue(), re.M)) == {name: f"{value:.4f}" for name, value in trained.items()}
    life.done("test")


def is_published(checkpoint: Any) -> bool:
    """Whether weights would have to be fetched: a walk begins with random ones then, as its nets are narrow."""
    return str(checkpoint).startswith("timm://")


def first_of_its_kind(folder: Path, *kind: Any) -> bool:
    """Whether no recipe has come yet that goes from image to figure in the same way: base nets are as narrow as small.

    Args:
        folder: the walk's.
        kind: parts of the config that make the way.
    """
    key = hashlib.sha256(repr(kind).encode()).hexdigest()[:16]
    try:
        (folder / f"walked_{key}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def checkpoints(life: Life) -> list[Path]:
    """Of the run itself, oldest first."""
    found = [*life.work_dir.glob("epoch_*.pth"), *life.work_dir.glob("iter_*.pth")]
    return sorted(found, key=lambda path: int(path.stem.split("_")[1]))


@contextmanager
def watched_evaluation() -> Iterator[list[list[str]]]:
    """The images that each evaluation saw: one list of paths an evaluation, in order."""
    evaluations: list[list[str]] = [[]]
    process, evaluate = Evaluator.process, Evaluator.evaluate

    def note(self, data_samples, data_batch=None):
        for one in data_samples:
            evaluations[-1].append(one.metainfo["img_path"] if hasattr(one, "metainfo") else one["img_path"])
        return process(self, data_samples, data_batch)

    def close(self, size):
        evaluations.append([])
        return evaluate(self, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "process", note)
        patch.setattr(Evaluator, "evaluate", close)
        yield evaluations


@contextmanager
def all_parameters_learning() -> Iterator[None]:
    """Each step has a gradient of each parameter that is to be trained: DistributedDataParallel needs that."""
    step = GuardedOptimWrapper.step

    def check(self, **options):
        assert all(p.grad is not None for group in self.param_groups for p in group["params"] if p.requires_grad)
        return step(self, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GuardedOptimWrapper, "step", check)
        yield


def run(verb: str, *words: Any) -> int:
    """``mst VERB …`` or ``mst-pretrain …``; the exit status."""
    arguments = [str(word) for word in words]
    if verb == "pretrain":
        from pretrain.run.train import main

        status = main(arguments)
    else:
        from mst_transfer.cli.main import main as mst

        status = mst([verb, *arguments])
    assert not multiprocessing.active_children()  # of data loading
    return status


def pictures(folder: Path) -> list[str]:
    """All images below a folder."""
    return sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def same_files(one: list[str], other: list[str]) -> bool:
    """Whether two lists name the same files, each once."""
    return sorted(map(os.path.realpath, one)) == sorted(map(os.path.realpath, other))
