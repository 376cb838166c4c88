"""What each of several processes does in the tests of lists of unreadable images."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmengine.logging import MessageHub

from mst_transfer.runs import launch
from mst_transfer.runs.unreadable_images import (
    TooManyUnreadableError,
    UnreadableImagesHook,
    append_to_list,
    list_of_rank,
)


def transfer(work_dir: Path, max_share: float) -> tuple[Any, str]:
    """Each process's workers name one file of their own, and all one in common."""
    launch.init_distributed("pytorch")
    rank, hub = launch.rank(), MessageHub.get_instance(f"hub of {work_dir}")
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=range(100)))
    steps = dict(iter=0, epoch=0, logger=logging.getLogger("test"), message_hub=hub, train_loop=loop)
    runner, hook = SimpleNamespace(work_dir=str(work_dir), **steps), UnreadableImagesHook(max_share, min_unreadable=0)
    hook.before_train(runner)
    for name in (f"{rank}.jpg", "common.jpg"):
        append_to_list(list_of_rank(str(work_dir), rank), name, "reason")
    try:
        hook.after_train_iter(runner, 0)
        hook.after_train_epoch(runner)
    except TooManyUnreadableError as error:
        return None, str(error)
    hook.after_train(runner)
    return hub.get_info("unreadable_images"), ""
