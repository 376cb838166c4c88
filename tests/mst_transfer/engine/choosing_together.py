"""What several processes take to resume from, and what they are told when the main one cannot write."""

import os

import torch.distributed as dist

from mst_transfer.runs.checkpoint_hook import CheckpointNotSavedError, SafeCheckpointHook
from mst_transfer.runs.checkpoints import find_checkpoint


def choose_together(work_dir: str) -> list[str]:
    """In each process: what --resume takes, and what is raised where it cannot."""
    dist.init_process_group("gloo")
    seen = [str(find_checkpoint(work_dir, "auto"))]
    for resume in (f"{work_dir}/epoch_2.pth", f"{work_dir}/epoch_9.pth"):
        try:
            find_checkpoint(work_dir, resume)
        except (ValueError, FileNotFoundError) as error:
            seen.append(str(error))

    def fail() -> None:
        assert os.environ["RANK"] == "0"
        raise OSError(28, "No space left on device")

    try:
        SafeCheckpointHook(interval=1)._together(fail)
    except CheckpointNotSavedError as error:
        seen.append(str(error))
    dist.destroy_process_group()
    return seen
