"""A run's work dir: one living run has it, and a new run does not mix its checkpoints with an earlier run's.

The main process of a run holds a lock on a hidden file. The system lets go of it when that process ends, however it
ends, so that a killed run never stands in the way of its successor; processes forked from it do not keep the lock.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mst_transfer.configs import saved
from mst_transfer.runs.checkpoints import POINTER, STEP_CHECKPOINT, decided_by_main

LOCK, HOLDER = ".run_lock", ".run_lock_holder"  # the second says who has the first
DYING_SECONDS = 5.0  # a process that was killed may take so long to let go of its memory, and then of its files
BELONGINGS = ("*.pth", "*.safetensors", "*.py", saved.FILE, POINTER, "results.json")  # of a run
# What a pre-training writes beside its checkpoints.
_BACKBONE = re.compile(r"(?:(?:epoch|iter)_\d+_|(?:knn|dense)_best_)?(?:teacher|student)\.safetensors")
_held: dict[Path, FileLock] = {}


class WorkDirInUseError(ValueError):
    """A living run has this work dir."""


class UsedWorkDirError(ValueError):
    """The work dir holds another run's checkpoints."""


def lock(work_dir: str | os.PathLike) -> str | None:
    """Makes a folder, which is made if it is missing, this process's until ``release``, or until it ends.

    A folder that it has already stays its own.

    Returns:
        None; or a sentence that says why there is no protection here.

    Raises:
        WorkDirInUseError: Another run has it: says which.
    """
    folder = Path(os.path.realpath(work_dir))
    if folder in _held:
        return None
    one = FileLock(folder / LOCK, fallback_to_soft=False, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        one.acquire(timeout=DYING_SECONDS)
    except Timeout:
        raise WorkDirInUseError(_refusal(work_dir, folder)) from None
    except (OSError, NotImplementedError) as error:  # a file system or system without locks
        one.release()
        reason = getattr(error, "strerror", None) or str(error)
        return f"{work_dir} cannot be locked ({reason}): see to it that no second run writes there"
    _held[folder] = one
    with suppress(OSError):  # a full disk
        (folder / HOLDER).write_text(f"process {os.getpid()} on {socket.gethostname()}")
    return None


def _refusal(work_dir: str | os.PathLike, folder: Path) -> str:
    holder = "another process"
    with suppress(OSError, UnicodeDecodeError):
        holder = (folder / HOLDER).read_text() or holder
    return (
        f"{work_dir} belongs to a run that is going on: {holder}. Next step: wait for it or end it, or take another "
        f"--work-dir or OUT; if there is no such process any more, its machine having crashed, remove {folder / LOCK}"
    )


def release(work_dir: str | os.PathLike) -> None:
    """Gives a folder back, if this process has it."""
    folder = Path(os.path.realpath(work_dir))
    one = _held.pop(folder, None)
    if one is not None and one.is_locked:  # not so in a process forked from the one that has it
        for name in (HOLDER, LOCK):
            with suppress(OSError):
                (folder / name).unlink()
        one.release()


def release_all() -> None:
    """Gives every folder back, before an end that runs nothing else of this process."""
    for folder in list(_held):
        release(folder)


@contextmanager
def locked(work_dir: str | os.PathLike) -> Iterator[str | None]:
    """Calls ``lock`` in the main process for all of a group, yields what it returns, and calls ``release``.

    Raises:
        WorkDirInUseError: In all other processes a plain ``ValueError`` that says the same.
    """
    remark = decided_by_main(lambda: lock(work_dir))
    try:
        yield remark
    finally:
        release(work_dir)


def earlier_checkpoints(work_dir: str | os.PathLike, writes_backbones: bool = False) -> list[str]:
    """Names the checkpoints that a run has left in its folder; or the backbones that a new run would write over."""
    names = [path.name for path in Path(work_dir).glob("*.pth")]
    found = [name for name in names if STEP_CHECKPOINT.fullmatch(name) or name.startswith("best_")]
    if writes_backbones and not found:
        found = [path.name for path in Path(work_dir).glob("*.safetensors") if _BACKBONE.fullmatch(path.name)]
    return sorted(found)


def check_unused(work_dir: str | os.PathLike, writes_backbones: bool = False) -> None:
    """Refuses to start a new run among an earlier run's checkpoints, or backbones if it writes such as a pre-training.

    Raises:
        UsedWorkDirError: names them, and the ways out.
    """
    found = earlier_checkpoints(work_dir, writes_backbones)
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise UsedWorkDirError(
            f"{work_dir} holds checkpoints of an earlier run: {shown}. Next step: --resume to go on with it, "
            "another --work-dir, or --fresh to start anew and keep the earlier run's files in a folder of their own "
            "beside the new ones"
        )


def set_aside(work_dir: str | os.PathLike, writes_backbones: bool = False) -> Path | None:
    """Moves an earlier run's checkpoints, config and results into ``earlier_1``, ``earlier_2``, … in its folder.

    Returns:
        The new folder; None if there are no checkpoints, and so nothing to move.
    """
    folder = Path(work_dir)
    if not earlier_checkpoints(folder, writes_backbones):
        return None
    number = 1
    while (folder / f"earlier_{number}").exists():
        number += 1
    aside = folder / f"earlier_{number}"
    aside.mkdir()
    belongings = [path for pattern in BELONGINGS for path in sorted(folder.glob(pattern)) if path.is_file()]
    for path in belongings:
        path.rename(aside / path.name)
    return aside


def begin_anew(work_dir: str | os.PathLike, fresh: bool, writes_backbones: bool = False) -> str | None:
    """Prepares the work dir of a run that goes on from nothing: ``set_aside`` if ``fresh``, or it must be unused.

    The main process acts; all return or raise the same.

    Returns:
        A sentence on what was moved.

    Raises:
        UsedWorkDirError: There are checkpoints, and not ``fresh``; a plain ``ValueError`` in other processes.
    """
    aside = decided_by_main(
        lambda: set_aside(work_dir, writes_backbones) if fresh else check_unused(work_dir, writes_backbones)
    )
    return None if aside is None else f"the files of the earlier run in {work_dir} are now in {aside}"
