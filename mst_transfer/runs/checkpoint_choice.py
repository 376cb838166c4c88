"""Which checkpoint a run goes on from: the newest that is whole, chosen by the main process for all."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mst_transfer.files.checksums import BrokenCheckpointError, verify_checkpoint

AUTO = "auto"
POINTER = "last_checkpoint"
STEP_CHECKPOINT = re.compile(r"(?:epoch|iter)_(\d+)\.pth")
Result = TypeVar("Result")
_RAISED_BY_ALL = (FileNotFoundError, OSError, ValueError, RuntimeError)  # the first that fits


@dataclass(frozen=True)
class Choice:
    """A checkpoint to go on from.

    Attributes:
        path: the file; None where there is no checkpoint at all.
        remarks: sentences on newer checkpoints that were passed over.
    """

    path: Path | None
    remarks: tuple[str, ...] = ()


def checkpoints_by_age(work_dir: str | os.PathLike) -> list[Path]:
    """The checkpoints that a run can go on from: the one that ``last_checkpoint`` names, then from the highest step
    down. No file is opened."""
    folder = Path(work_dir)
    steps = {path: int(match[1]) for path in folder.glob("*.pth") if (match := STEP_CHECKPOINT.fullmatch(path.name))}
    found = sorted(steps, key=lambda path: (-steps[path], path.name))
    named = _named(folder)
    if named is not None:
        there = next((path for path in (named, folder / named.name) if path.is_file()), None)
        if there is not None:
            found = [there, *(path for path in found if path.resolve() != there.resolve())]
    return found


def latest_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The first of :func:`checkpoints_by_age`, whether it is whole or not; None if there is none."""
    return next(iter(checkpoints_by_age(work_dir)), None)


def _named(folder: Path) -> Path | None:
    try:
        text = (folder / POINTER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(text) if text and "\0" not in text else None


def newest_whole_checkpoint(work_dir: str | os.PathLike) -> Choice:
    """The newest checkpoint whose content is as it was written.

    Raises:
        BrokenCheckpointError: There are checkpoints, and all of them are broken.
    """
    faults: list[BrokenCheckpointError] = []
    for path in checkpoints_by_age(work_dir):
        try:
            verify_checkpoint(path)
        except BrokenCheckpointError as error:
            faults.append(error)
        except OSError as error:
            faults.append(BrokenCheckpointError(path, f"it cannot be read ({error.strerror})"))
        else:
            return Choice(path, tuple(f"{one.path} is broken ({one.reason}); going on from {path}" for one in faults))
    if not faults:
        return Choice(None)
    others = "".join(f"; {one.path.name} is broken too ({one.reason})" for one in faults[1:])
    raise BrokenCheckpointError(
        faults[0].path,
        faults[0].reason + others,
        f"no checkpoint in {work_dir} is whole: bring one back from a copy, or start anew without --resume and with "
        "--fresh, which keeps these files aside",
    )


def choose_checkpoint(work_dir: str | os.PathLike, resume: str) -> Choice:
    """The checkpoint that ``--resume`` means.

    Args:
        work_dir: of the run.
        resume: ``auto`` for the newest whole one in ``work_dir``, or a path or address.

    Raises:
        FileNotFoundError: No such file.
        BrokenCheckpointError: The named file is broken, or all in ``work_dir`` are.
    """
    if resume == AUTO:
        return newest_whole_checkpoint(work_dir)
    path = Path(resume)
    if "://" in resume:
        return Choice(path)
    if not path.is_file():
        folder = path.parent
        found = sorted(file.name for file in folder.glob("*.pth")) if folder.is_dir() else []
        there = f"that folder has {', '.join(found)}" if found else f"there is no .pth file in {folder}"
        raise FileNotFoundError(
            f"checkpoint {path} does not exist; {there}. Next step: name one that is there, or leave the name out to "
            "take the newest one"
        )
    try:
        verify_checkpoint(path)
    except BrokenCheckpointError as error:
        raise BrokenCheckpointError(path, error.reason, _instead_of(path)) from error
    return Choice(path)


def _instead_of(broken: Path) -> str:
    """What to resume from instead: the newest whole checkpoint beside it."""
    for path in checkpoints_by_age(broken.parent):
        try:
            if path.resolve() != broken.resolve():
                verify_checkpoint(path)
                return f"--resume {path}, the newest one beside it that is whole"
        except (BrokenCheckpointError, OSError):
            continue
    return "bring it back from a copy; there is no other whole checkpoint beside it"


def decided_by_main(decide: Callable[[], Result]) -> Result:
    """What ``decide`` returns, or raises, in the main process; the same in all others, which do not call it.

    Raises:
        Exception: whatever the main process's ``decide`` raised.
    """
    from mmengine.dist import broadcast_object_list, is_main_process

    outcome: list = [None, None, None]
    fault: Exception | None = None
    if is_main_process():
        try:
            outcome[0] = decide()
        except _RAISED_BY_ALL as error:
            kind = next(kind for kind in _RAISED_BY_ALL if isinstance(error, kind))
            outcome[1:], fault = [kind.__name__, str(error)], error
    broadcast_object_list(outcome)
    if fault is not None:
        raise fault
    for kind in _RAISED_BY_ALL:
        if outcome[1] == kind.__name__:
            raise kind(outcome[2])
    return outcome[0]
