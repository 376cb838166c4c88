"""Wishes to stop, from a signal or the launcher's file; torchrun that passes them on; what programs return and say."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_groups import free_port

from mst_transfer.runs import launch, stop, work_dir


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The launcher's."""
    monkeypatch.setenv(stop.FOLDER, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)], ids=lambda x: str(int(x))
)
def test_a_signal_becomes_a_wish_and_then_an_exit_status(number: int, status: int) -> None:
    before = signal.getsignal(number)
    with stop.listening():
        assert stop.wish() == 0
        os.kill(os.getpid(), number)
        assert stop.agreed() == 0 and stop.agree_now() == stop.wish() == stop.agreed() == status
    assert signal.getsignal(number) == before
    with stop.listening():  # the next run
        assert stop.wish() == stop.agreed() == 0


def test_the_larger_wish_wins() -> None:
    with stop.listening():
        for status in (75, 130, 75):
            stop.agree(status)
        assert stop.agreed() == 130


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_signal_ends_the_process(first: str) -> None:
    code = (
        "import os, signal\nfrom mst_transfer.runs import stop\nwith stop.listening():\n"
        f"    os.kill(os.getpid(), signal.{first})\n    print('alive', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('still alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM and done.stdout == "alive\n"
    assert f"{first}: the step is finished and a checkpoint saved" in done.stderr


def test_under_torchrun_an_echo_is_no_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT), os.kill(os.getpid(), signal.SIGINT)
        assert stop.wish() == 130


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGHUP", 75)])
def test_the_launchers_file_is_a_wish_and_gets_the_status(name: str, status: int, folder: Path) -> None:
    with stop.listening():
        (folder / stop.STOP_FILE).write_text(name)
        assert stop.agree_now() == status
    assert stop.exit_status(status) == 0 and (folder / stop.STATUS_FILE).read_text() == str(status)
    assert stop.exit_status(1) == 1


def test_what_is_started_again_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it failed before training had begun: then its folder may hold another run."""
    for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert not stop.is_restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not stop.is_restarted()
    stop.note_begun()
    assert stop.is_restarted()
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT")  # another machine has failed
    assert stop.is_restarted()
    (folder / stop.BEGUN_FILE).unlink()
    assert not stop.is_restarted()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert stop.is_restarted()


def run_to_end(error: BaseException | None, begun: bool = False) -> tuple[int, str | None]:
    def run() -> str:
        if begun:
            stop.note_begun()
        if error is not None:
            raise error
        return "done"

    return stop.run_to_end("a program", run, (KeyError,), early_refusals=(ValueError,), stoppable=True)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (stop.StoppedBySignal("saved in x.pth", 75), 75, "a program: saved in x.pth\n"),
        (stop.StoppedBySignal("saved in x.pth", 130), 130, "a program: saved in x.pth\n"),
        (FloatingPointError("3 steps in a row"), 1, "a program: 3 steps in a row\n"),
        (KeyError("refused"), 1, "a program: 'refused'\n"),
        (ValueError("does not fit"), 1, "a program: does not fit\n"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), 1, "a program: a data-loading"),
    ],
)
def test_known_ends(error, status: int, said: str, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv(stop.FOLDER, raising=False)
    assert run_to_end(error) == (status, "done" if error is None else None)
    found = capsys.readouterr().err
    assert found.startswith(said) and bool(found) == bool(said)


@pytest.mark.parametrize(("error", "begun"), [(TypeError("x"), False), (ValueError("x"), True)])
def test_other_errors_are_raised(error: Exception, begun: bool) -> None:
    with pytest.raises(type(error)):
        run_to_end(error, begun)


def test_in_a_group_a_failed_process_does_not_wait() -> None:
    """It would wait for its neighbours, and they for it."""
    code = (
        "from mst_transfer.runs import launch, stop\nlaunch.world_size = lambda: 2\n"
        "def fail(): raise KeyError('alone')\n"
        "try: stop.run_to_end('a program', fail)\nfinally: print('waits')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "KeyError: 'alone'" in done.stderr and not done.stdout


def test_a_process_of_a_group_gives_its_work_dir_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(launch, "world_size", lambda: 2)
    monkeypatch.setattr(stop.os, "_exit", ended.append)
    monkeypatch.setattr(stop.logging, "shutdown", lambda: None)
    work_dir.lock(tmp_path)
    stop.end_group(1)
    assert ended == [1] and list(tmp_path.iterdir()) == []


PROGRAM = """
import os, sys, time
from mst_transfer.runs import stop
say, mode = sys.argv[1:]
again = os.environ["TORCHELASTIC_RESTART_COUNT"]
if mode == "fail" or (mode == "fail once" and again == "0"):
    stop.note_begun()
    sys.exit(7)
if mode != "wait":
    open(say, "w").write(f"{again} {stop.is_restarted()}")
    sys.exit(0)
with stop.listening():
    print("begun", flush=True)
    while not stop.wish():
        time.sleep(0.02)
sys.exit(stop.exit_status(stop.wish()))
"""


def start_torchrun(root: Path, tmp_path: Path, program: str, *words: str, options: tuple[str, ...]) -> subprocess.Popen:
    """The launcher with a program, whose first word is a path."""
    (script := tmp_path / "program.py").write_text(program)
    (tmp_path / "temporary").mkdir()
    code = "import sys; from mst_transfer.runs.stop import run_torchrun; sys.exit(run_torchrun(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *options, str(script), str(tmp_path / "said")]
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path / "temporary"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(root),
    }
    return subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


ALONE = ("--nproc_per_node", "1", "--standalone")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_wish_reaches_the_processes_and_their_status_comes_back(
    number: int, status: int, root: Path, tmp_path: Path
) -> None:
    process = start_torchrun(root, tmp_path, PROGRAM, "wait", options=ALONE)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == status, said
    assert f"{signal.Signals(number).name}: all processes finish their step" in said
    assert not list((tmp_path / "temporary").glob("mst_launch_*"))


@pytest.mark.parametrize(("mode", "times", "status", "left"), [("fail once", 1, 0, "1 True"), ("fail", 0, 1, None)])
def test_a_failed_process_is_started_again_and_knows_it(
    mode: str, times: int, status: int, left: str | None, root: Path, tmp_path: Path
) -> None:
    process = start_torchrun(root, tmp_path, PROGRAM, mode, options=(*ALONE, "--max-restarts", str(times)))
    _, said = process.communicate(timeout=300)
    assert process.returncode == status, said
    note = tmp_path / "said"
    assert (note.read_text() if note.exists() else None) == left


EXCHANGE = """
import os, sys, time
import torch
import torch.distributed as dist
from mst_transfer.runs import launch
launch.init_distributed("pytorch")
value = torch.tensor(float(os.environ["RANK"]))
dist.all_reduce(value)
if os.environ["TORCHELASTIC_RESTART_COUNT"] in ("0", "1"):
    os.kill(os.getpid(), 9) if dist.get_rank() == 1 else time.sleep(60)
open(f"{sys.argv[1]}_{dist.get_rank()}", "w").write(str(value.item()))
launch.shutdown_distributed()
"""


@pytest.mark.slow
def test_processes_that_are_started_again_find_each_other(root: Path, tmp_path: Path) -> None:
    """torchrun's store still has the addresses of those that have died."""
    options = ("--nnodes", "1", "--node_rank", "0", "--nproc_per_node", "2", "--max-restarts", "2")
    options += ("--master_addr", "127.0.0.1", "--master_port", str(free_port()))
    process = start_torchrun(root, tmp_path, EXCHANGE, options=options)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    assert "failed to connect" not in said
    assert [(tmp_path / f"said_{rank}").read_text() for rank in range(2)] == ["1.0", "1.0"]
