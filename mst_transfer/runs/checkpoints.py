"""Finds the checkpoint that a run goes on from: the newest that is whole, chosen by the main process for all."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mst_transfer.files.checksums import BrokenCheckpointError, verify_checkpoint
from mst_transfer.runs import launch

AUTO = "auto"
POINTER = "last_checkpoint"
STEP_CHECKPOINT = re.compile(r"(?:epoch|iter)_(\d+)\.pth")
Result = TypeVar("Result")
_RAISED_BY_ALL = (FileNotFoundError, OSError, ValueError, RuntimeError)  # the first that fits


def checkpoints_by_age(work_dir: str | os.PathLike) -> list[Path]:
    """Lists the checkpoints that a run can go on from: the one that ``last_checkpoint`` names, then from the highest
    step down. No file is opened."""
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
    """Returns the first of ``checkpoints_by_age``, whether it is whole or not; None if there is none."""
    return next(iter(checkpoints_by_age(work_dir)), None)


def _named(folder: Path) -> Path | None:
    try:
        text = (folder / POINTER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(text) if text and "\0" not in text else None


def newest_whole_checkpoint(work_dir: str | os.PathLike) -> tuple[Path | None, list[str]]:
    """Finds the newest checkpoint whose content is as it was written.

    Returns:
        The file, None where there is no checkpoint at all; and sentences on newer ones that were passed over.

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
            return path, [f"{one.path} is broken ({one.reason}); going on from {path}" for one in faults]
    if not faults:
        return None, []
    others = "".join(f"; {one.path.name} is broken too ({one.reason})" for one in faults[1:])
    raise BrokenCheckpointError(
        faults[0].path,
        faults[0].reason + others,
        f"no checkpoint in {work_dir} is whole: bring one back from a copy, or start anew without --resume and with "
        "--fresh, which keeps these files aside",
    )


def existing_checkpoint(path: str) -> str:
    """Returns a checkpoint's path, or address.

    Raises:
        FileNotFoundError: No such file; names what its folder has instead.
    """
    if "://" not in path and not Path(path).is_file():
        folder = Path(path).parent
        found = sorted(file.name for file in folder.glob("*.pth")) if folder.is_dir() else []
        there = f"that folder has {', '.join(found)}" if found else f"there is no .pth file in {folder}"
        raise FileNotFoundError(f"checkpoint {path} does not exist; {there}. Next step: name one that is there")
    return path


def _named_checkpoint(resume: str) -> str:
    if "://" not in existing_checkpoint(resume):
        verify_checkpoint(resume)
    return resume


def find_checkpoint(work_dir: str | os.PathLike, resume: str) -> str | None:
    """Finds the checkpoint that ``--resume`` means, the same in every process: the main one decides, and says why.

    ``auto`` is the newest whole one in ``work_dir``, all else a path or address.

    Returns:
        Its path or address; None if there is none to go on from.

    Raises:
        FileNotFoundError: No such file, here or in the main process.
        BrokenCheckpointError: It is broken, or all in ``work_dir`` are; in all processes but the main one a plain
            ``ValueError`` that says the same.
    """
    found: str | None
    if resume != AUTO:
        found = decided_by_main(lambda: _named_checkpoint(resume))
    else:
        path, remarks = decided_by_main(lambda: newest_whole_checkpoint(work_dir))
        found = None if path is None else str(path)
        if path is None:
            remarks = [f"{work_dir} has no checkpoint yet, so the run starts anew"]
        for remark in remarks if launch.rank() == 0 else ():
            print(f"--resume: {remark}", file=sys.stderr)
    if found is not None and "://" not in found and not Path(found).is_file():
        raise FileNotFoundError(f"--resume {found}: this process has no such file; the folder must be shared")
    return found


def decided_by_main(decide: Callable[[], Result]) -> Result:
    """Returns what ``decide`` does, or raises, in the main process; the same in all others, which do not call it.

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
