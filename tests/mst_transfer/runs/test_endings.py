"""What a training program returns, and what it says, for each way to end."""

import os
import subprocess
import sys

import pytest

from mst_transfer.runs import endings, launch, run_lock, signals


def ends(error: BaseException | None) -> int:
    def train() -> None:
        if error is not None:
            raise error

    return endings.train_to_end("a program", train)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (signals.StoppedBySignal("saved in x.pth", 75), 75, "a program: saved in x.pth\n"),
        (signals.StoppedBySignal("saved in x.pth", 130), 130, "a program: saved in x.pth\n"),
        (FloatingPointError("3 steps in a row"), 1, "a program: 3 steps in a row\n"),
    ],
)
def test_endings_that_are_known(error, status: int, said: str, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv(signals.FOLDER, raising=False)
    assert ends(error) == status
    assert capsys.readouterr().err == said


def test_a_dead_worker_is_explained(capsys: pytest.CaptureFixture) -> None:
    assert ends(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")) == 1
    assert "a program: a data-loading worker (process 7) was killed (SIGKILL)" in capsys.readouterr().err


def test_other_errors_are_the_callers() -> None:
    with pytest.raises(KeyError):
        ends(KeyError("x"))
    with pytest.raises(KeyError):
        endings.fail_alone(KeyError("x"))
    assert endings.end_group(3) == 3


def test_in_a_group_a_failed_process_does_not_wait() -> None:
    """It would wait for its neighbours, and they for it."""
    code = (
        "from mst_transfer.runs import endings; from mst_transfer.runs import launch\nlaunch.world_size = lambda: 2\n"
        "try: endings.fail_alone(KeyError('alone'))\nfinally: print('waits')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 1 and "KeyError: 'alone'" in done.stderr and not done.stdout


def test_a_process_of_a_group_gives_its_work_dir_back(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(launch, "world_size", lambda: 2)
    monkeypatch.setattr(endings.os, "_exit", ended.append)
    monkeypatch.setattr(endings.logging, "shutdown", lambda: None)
    run_lock.lock(tmp_path)
    endings.end_group(1)
    assert ended == [1] and list(tmp_path.iterdir()) == []
