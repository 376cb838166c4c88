"""A work dir belongs to one living run, and a new run does not mix its checkpoints with those of another."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mst_transfer.cli.main import main as mst
from mst_transfer.runs import work_dir
from mst_transfer.runs.work_dir import HOLDER, LOCK, UsedWorkDirError, WorkDirInUseError, begin_anew, check_unused, lock

HOLD = """
import os, sys, time
from mst_transfer.runs import work_dir
work_dir.lock(sys.argv[1])
if os.fork() == 0:  # as a data-loading worker
    os.setsid()
    work_dir.release(sys.argv[1])  # its parent's, so without effect
os.write(1, f"{os.getpid()}\\n".encode())  # in one piece: two processes write
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_dir, "DYING_SECONDS", 0.2)


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """A process that has the folder, and a fork of it that outlives it; the process's id."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
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
        said = f"process {pid} on {socket.gethostname()}.*another --work-dir.*remove {tmp_path / LOCK}"
        with pytest.raises(WorkDirInUseError, match=said), work_dir.locked(tmp_path):
            pass
        os.kill(pid, signal.SIGKILL)  # its fork lives on
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with work_dir.locked(tmp_path) as remark:
            assert remark is None
            assert (tmp_path / HOLDER).read_text().startswith(f"process {os.getpid()} ")
    assert not list(tmp_path.iterdir())


def test_a_process_may_ask_twice_and_gives_back(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    assert lock(tmp_path / "new") is None and lock(tmp_path / "link") is None
    work_dir.release(tmp_path / "link")
    assert not list((tmp_path / "new").iterdir())
    work_dir.release(tmp_path / "new")  # nothing to give back
    with held(tmp_path / "new"), pytest.raises(WorkDirInUseError):
        lock(tmp_path / "new")


def test_a_dying_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been killed, and still holds its files."""
    monkeypatch.setattr(work_dir, "DYING_SECONDS", 60.0)
    with held(tmp_path) as pid:
        subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {pid}"])
        assert lock(tmp_path) is None
        work_dir.release(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_there_are_no_locks_a_sentence_says_so(code: int, tmp_path: Path, monkeypatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with work_dir.locked(tmp_path) as remark:
        assert remark is not None and os.strerror(code) in remark and "no second run" in remark


@pytest.mark.parametrize("words", [[], ["--fresh"], ["--resume"]])
def test_training_refuses_and_touches_nothing(words: list[str], tiny_seg_config: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    with held(folder) as pid:
        if "--fresh" in words:
            (folder / "epoch_1.pth").write_text("a living run's")
        before = sorted(folder.iterdir())
        assert mst(["train", str(tiny_seg_config), "--work-dir", str(folder), *words]) == 1
        assert f"mst train: {folder} belongs to a run that is going on: process {pid}" in capsys.readouterr().err
        assert sorted(folder.iterdir()) == before


def test_a_used_folder_is_refused_or_its_files_are_set_aside(tmp_path: Path) -> None:
    check_unused(tmp_path / "missing")
    for name in ("results.json", "config.py", "teacher.safetensors"):
        (tmp_path / name).write_text("earlier")
    check_unused(tmp_path)
    assert begin_anew(tmp_path, fresh=True) is None  # no checkpoint: nothing is moved
    with pytest.raises(UsedWorkDirError, match=r"earlier run: teacher\.safetensors"):
        check_unused(tmp_path, writes_backbones=True)  # as a pre-training does, over the one that is there
    for name in ("epoch_1.pth", "epoch_2.pth", "best_x.pth", "iter_7.pth", "last_checkpoint", "notes.txt"):
        (tmp_path / name).write_text("earlier")
    with pytest.raises(UsedWorkDirError, match=r"best_x\.pth, epoch_1\.pth, epoch_2\.pth and 1 more.*--fresh"):
        begin_anew(tmp_path, fresh=False)
    assert str(tmp_path / "earlier_1") in str(begin_anew(tmp_path, fresh=True))
    assert {path.name for path in tmp_path.iterdir()} == {"earlier_1", "notes.txt"}
    assert len(list((tmp_path / "earlier_1").iterdir())) == 8
    (tmp_path / "epoch_1.pth").write_text("later")
    assert str(tmp_path / "earlier_2") in str(begin_anew(tmp_path, fresh=True))
    assert (tmp_path / "earlier_1" / "epoch_1.pth").read_text() == "earlier"


def test_backbones_alone_are_kept_from_a_new_pretraining(tmp_path: Path) -> None:
    for name in ("student.safetensors", "iter_4_teacher.safetensors", "dino.safetensors"):
        (tmp_path / name).write_text("earlier")
    assert begin_anew(tmp_path, fresh=False) is None  # a head leaves them as they are
    assert begin_anew(tmp_path, fresh=True, writes_backbones=True) is not None
    assert (tmp_path / "earlier_1" / "student.safetensors").read_text() == "earlier"
    assert begin_anew(tmp_path, fresh=False, writes_backbones=True) is None
