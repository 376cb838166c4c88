"""A work dir belongs to one living run: real processes hold it, are killed, and have heirs."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mst_transfer.runs.run_lock import NAME, WorkDirInUseError, lock, locked, release

from mst_transfer.cli.main import main as mst
from mst_transfer.runs import run_lock

HOLD = """
import os, sys, time
from mst_transfer.runs import run_lock
run_lock.lock(sys.argv[1])
if os.fork() == 0:  # as a data-loading worker
    os.setsid()
os.write(1, f"{os.getpid()}\\n".encode())  # in one piece: two processes write
time.sleep(600)
"""


@contextmanager
def held(work_dir: Path) -> Iterator[int]:
    """A process that has the folder, and a fork of it that outlives it; the process's id."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(work_dir)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    pids = [int(holder.stdout.readline()) for _ in range(2)]
    try:
        yield holder.pid
    finally:
        for pid in pids:
            if pid != holder.pid:
                os.kill(pid, signal.SIGKILL)
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_living_run_is_named_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    with held(tmp_path) as pid:
        said = f"process {pid} on {socket.gethostname()}.*another --work-dir"
        with pytest.raises(WorkDirInUseError, match=said), locked(tmp_path):
            pass
        os.kill(pid, signal.SIGKILL)  # its fork lives on
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with locked(tmp_path) as remark:
            assert remark is None
            assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_process_may_ask_twice_and_gives_back(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    assert lock(tmp_path / "new") is None and lock(tmp_path / "link") is None
    release(tmp_path / "link")
    assert not list((tmp_path / "new").iterdir())
    release(tmp_path / "new")  # nothing to give back
    with held(tmp_path / "new"), pytest.raises(WorkDirInUseError):
        lock(tmp_path / "new")


def test_a_run_on_another_machine_is_named_with_the_file(tmp_path: Path) -> None:
    with open(tmp_path / NAME, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump(dict(pid=7, host="elsewhere"), file)
        file.flush()
        with pytest.raises(WorkDirInUseError, match=rf"process 7 on elsewhere.*remove {tmp_path / NAME}"):
            lock(tmp_path)


def test_a_dying_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been killed, and still holds its files."""
    file = open(tmp_path / NAME, "w")
    fcntl.flock(file, fcntl.LOCK_EX)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    file.write(json.dumps(dict(pid=gone.pid, host=socket.gethostname())))
    file.flush()
    monkeypatch.setattr(run_lock.time, "sleep", lambda seconds: file.close())
    assert lock(tmp_path) is None
    release(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_there_are_no_locks_a_sentence_says_so(code: int, tmp_path: Path, monkeypatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path) as remark:
        assert remark is not None and os.strerror(code) in remark and "no second run" in remark


def test_without_the_module_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)
    assert "no file locks" in str(lock(tmp_path))


@pytest.mark.parametrize("words", [[], ["--fresh"], ["--resume"]])
def test_training_refuses_and_touches_nothing(
    words: list[str], tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work_dir = tmp_path / "run"
    with held(work_dir) as pid:
        if "--fresh" in words:
            (work_dir / "epoch_1.pth").write_text("a living run's")
        before = sorted(work_dir.iterdir())
        assert mst(["train", str(tiny_seg_config), "--work-dir", str(work_dir), *words]) == 1
        assert f"mst train: {work_dir} belongs to a run that is going on: process {pid}" in capsys.readouterr().err
        assert sorted(work_dir.iterdir()) == before
