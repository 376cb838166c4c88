"""A run that is told to stop saves once, between its regular checkpoints, and goes on from there."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from line_run import build
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mst_transfer.runs import stop
from mst_transfer.runs.checkpoint_hook import SafeCheckpointHook
from mst_transfer.runs.stop_hook import StopHook


class Told(Hook):
    """The scheduler's signal, in one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter == self.step:
            os.kill(os.getpid(), signal.SIGUSR1)


def stopped(work_dir: Path, step: int, **options: Any) -> str:
    """What a run says that hears the signal in its step of that number, counted from 0."""
    runner = build(work_dir, **options)
    runner.register_hook(Told(step))
    runner.register_hook(StopHook(), priority="LOWEST")
    with stop.listening(), pytest.raises(stop.StoppedBySignal) as caught:
        runner.train()
    assert caught.value.status == 75
    return str(caught.value)


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.pth")}


def test_the_checkpoint_in_between_goes_when_the_next_regular_one_is_there(tmp_path: Path) -> None:
    said = stopped(tmp_path, 2)
    assert "after 3 steps of training" in said and f"saved in {tmp_path / 'iter_3.pth'}" in said
    assert checkpoints(tmp_path) == {"epoch_1.pth", "iter_3.pth"}
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "iter_3.pth")
    runner = build(tmp_path, epochs=2, resume=str(tmp_path / "iter_3.pth"))
    runner.register_hook(StopHook(), priority="LOWEST")
    with stop.listening():
        runner.train()
    assert checkpoints(tmp_path) == {"epoch_1.pth", "epoch_2.pth"}


def test_a_step_that_has_a_checkpoint_gets_no_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], SafeCheckpointHook._write

    def note(self: SafeCheckpointHook, runner: Runner, step: int, *others: Any) -> None:
        written.append(step)
        write(self, runner, step, *others)

    monkeypatch.setattr(SafeCheckpointHook, "_write", note)
    said = stopped(tmp_path, 1, by_epoch=False)
    assert written == [1, 2] and f"saved in {tmp_path / 'iter_2.pth'}" in said
