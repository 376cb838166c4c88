"""Wishes to stop, from a signal or from the launcher's file, and what programs return."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mst_transfer.runs import signals


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The launcher's."""
    monkeypatch.setenv(signals.FOLDER, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)], ids=lambda x: str(int(x))
)
def test_a_signal_becomes_a_wish_and_then_an_exit_status(number: int, status: int) -> None:
    before = signal.getsignal(number)
    with signals.listening():
        assert signals.wish() == 0
        os.kill(os.getpid(), number)
        assert signals.agreed() == 0 and signals.agree_now() == signals.wish() > 0
        assert signals.status_of(signals.agreed()) == status
    assert signal.getsignal(number) is before
    with signals.listening():
        assert signals.wish() == signals.agreed() == 0


def test_the_larger_wish_wins() -> None:
    with signals.listening():
        signals.agree(1), signals.agree(2), signals.agree(1)
        assert signals.status_of(signals.agreed()) == signals.STATUS_GO_ON


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_signal_ends_the_process(first: str) -> None:
    code = (
        "import os, signal\nfrom mst_transfer.runs import signals\n"
        f"with signals.listening():\n    os.kill(os.getpid(), signal.{first})\n    print('alive', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('still alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM and done.stdout == "alive\n"
    assert f"{first}: the step is finished and a checkpoint saved" in done.stderr


def test_under_torchrun_an_echo_is_no_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with signals.listening():
        os.kill(os.getpid(), signal.SIGINT), os.kill(os.getpid(), signal.SIGINT)
        assert signals.wish() == 1


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGHUP", 75)])
def test_the_launchers_file_is_a_wish_and_gets_the_status(name: str, status: int, folder: Path) -> None:
    with signals.listening():
        (folder / signals.STOP_FILE).write_text(name)
        assert signals.status_of(signals.agree_now()) == status
    assert signals.exit_status(status) == 0 and (folder / signals.STATUS_FILE).read_text() == str(status)
    assert signals.exit_status(1) == 1


def test_without_a_launcher_a_program_returns_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(signals.FOLDER, raising=False)
    assert [signals.exit_status(status) for status in (0, 1, 75, 130)] == [0, 1, 75, 130]


def test_what_is_started_again_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it failed before training had begun: then its folder may hold another run."""
    for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    signals.note_begun()
    assert not signals.goes_on()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert signals.goes_on()
    (folder / signals.BEGUN_FILE).unlink()
    assert not signals.goes_on()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert signals.goes_on()
