"""One live run a work dir: two would write the same checkpoints, and ``--fresh`` would move those of a living one.

The main process of a run holds a lock on a hidden file. The system lets go of it when that process ends, however it
ends, so that a killed run never stands in the way of its successor; processes forked from it do not keep the lock.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mst_transfer.runs.checkpoint_choice import decided_by_main

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".run_lock"
DYING_SECONDS = 20.0  # a process that was killed may take so long to let go of its memory, and then of its files
DEAD_SECONDS = 1.0  # and so long until it is seen to be dying
_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_held: dict[Path, int] = {}


class WorkDirInUseError(ValueError):
    """A living run has this work dir."""


def lock(work_dir: str | os.PathLike) -> str | None:
    """Makes a folder, which is made if it is missing, this process's until :func:`release`, or until it ends.

    A folder that it has already stays its own.

    Returns:
        None; or a sentence that says why there is no protection here.

    Raises:
        WorkDirInUseError: Another run has it: says which.
    """
    path = _path(work_dir)
    if path in _held:
        return None
    if fcntl is None:
        return _unprotected(work_dir, "this system has no file locks")
    until, sure = time.monotonic() + DYING_SECONDS, time.monotonic() + DEAD_SECONDS
    while True:
        try:
            handle = _try(path)
        except OSError as error:
            return _unprotected(work_dir, error.strerror or str(error))
        if handle is not None:
            _held[path] = handle
            return None
        holder = _holder(path)
        if time.monotonic() > (sure if _alive(holder) else until):
            raise WorkDirInUseError(_refusal(work_dir, path, holder))
        time.sleep(0.05)


def _try(path: Path) -> int | None:
    """The locked file, with a note of who has it; None if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.stat(path)):  # its former owner has just removed it
            raise FileNotFoundError
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(dict(pid=os.getpid(), host=socket.gethostname())).encode(), 0)
        return handle
    except FileNotFoundError:
        os.close(handle)
        return _try(path)
    except OSError as error:
        os.close(handle)
        if error.errno in _BUSY:
            return None
        raise


def _path(work_dir: str | os.PathLike) -> Path:
    return Path(os.path.realpath(work_dir)) / NAME


def _holder(path: Path) -> dict[str, Any]:
    """Who wrote the note; empty while it is being written."""
    with suppress(OSError, ValueError):
        note = json.loads(path.read_text())
        if isinstance(note, dict):
            return note
    return {}


def _alive(holder: dict[str, Any]) -> bool:
    """Whether there is such a process, as far as this machine can tell."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return bool(holder)
    with suppress(OSError, IndexError):  # where there is /proc: Z and X are dead, their parent has not looked yet
        status = Path(f"/proc/{holder['pid']}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return status not in "ZX"
    try:
        os.kill(holder["pid"], 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _refusal(work_dir: str | os.PathLike, path: Path, holder: dict[str, Any]) -> str:
    who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "another process"
    return (
        f"{work_dir} belongs to a run that is going on: {who}. Next step: wait for it or end it, or take another "
        f"--work-dir; if there is no such process any more, its machine having crashed, remove {path}"
    )


def _unprotected(work_dir: str | os.PathLike, reason: str) -> str:
    return f"{work_dir} cannot be locked ({reason}): see to it that no second run writes there"


def release(work_dir: str | os.PathLike) -> None:
    """Gives a folder back, if this process has it."""
    path = _path(work_dir)
    handle = _held.pop(path, None)
    if handle is not None:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def release_all() -> None:
    """:func:`release` for every folder, before an end that runs nothing else of this process."""
    for path in list(_held):
        release(path.parent)


@contextmanager
def locked(work_dir: str | os.PathLike) -> Iterator[str | None]:
    """:func:`lock` in the main process for all of a group, and :func:`release`.

    Yields:
        What :func:`lock` returns.

    Raises:
        WorkDirInUseError: In all other processes a plain ``ValueError`` that says the same.
    """
    remark = decided_by_main(lambda: lock(work_dir))
    try:
        yield remark
    finally:
        release(work_dir)


def _forget() -> None:
    """In a forked process: the lock is its parent's, and ends with that."""
    for handle in _held.values():
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
