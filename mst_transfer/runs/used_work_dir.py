"""A folder that holds an earlier run's checkpoints: a new run does not mix its own with them."""

import os
import re
from pathlib import Path

from mst_transfer.configs import saved
from mst_transfer.files.checksums import LIST
from mst_transfer.runs.checkpoint_choice import POINTER, STEP_CHECKPOINT

BELONGINGS = ("*.pth", "*.safetensors", "*.py", saved.FILE, POINTER, LIST, "results.json")  # of a run
# What a pre-training writes beside its checkpoints.
_BACKBONE = re.compile(r"(?:(?:epoch|iter)_\d+_|knn_best_)?(?:teacher|student)\.safetensors")


class UsedWorkDirError(ValueError):
    """The work dir holds another run's checkpoints."""


def earlier_checkpoints(work_dir: str | os.PathLike, writes_backbones: bool = False) -> list[str]:
    """Names of the checkpoints that a run has left in its folder; or of backbones that a new run would write over."""
    names = [path.name for path in Path(work_dir).glob("*.pth")]
    found = [name for name in names if STEP_CHECKPOINT.fullmatch(name) or name.startswith("best_")]
    if writes_backbones and not found:
        found = [path.name for path in Path(work_dir).glob("*.safetensors") if _BACKBONE.fullmatch(path.name)]
    return sorted(found)


def check_unused(work_dir: str | os.PathLike, writes_backbones: bool = False) -> None:
    """Refuses to start a new run among an earlier run's checkpoints.

    Args:
        work_dir: of the new run.
        writes_backbones: whether it writes backbone files, as a pre-training does: an earlier one's count, too.

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


def begin_anew(work_dir: str | os.PathLike, fresh: bool, writes_backbones: bool = False) -> Path | None:
    """:func:`set_aside` if ``fresh``, else :func:`check_unused`."""
    if fresh:
        return set_aside(work_dir, writes_backbones)
    check_unused(work_dir, writes_backbones)
    return None
