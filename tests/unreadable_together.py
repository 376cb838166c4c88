"""What each of several processes does in the tests of lists of unreadable images."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mst_transfer.runs.unreadable_images import (
    TooManyUnreadableError,
    UnreadableImagesHook,
    append_to_list,
    list_of_rank,
)


def _join() -> int:
    from mmengine.dist import get_rank

    from mst_transfer.runs import launch

    launch.init_distributed("pytorch")
    return get_rank()


def _runner(work_dir: Path, dataset: Any) -> Any:
    from mmengine.logging import MessageHub

    return SimpleNamespace(
        work_dir=str(work_dir),
        iter=0,
        epoch=0,
        logger=logging.getLogger("test"),
        message_hub=MessageHub.get_instance(f"hub of {work_dir}"),
        train_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)),
    )


def transfer(work_dir: Path, max_share: float) -> tuple[Any, str]:
    """Each process's workers name one file of their own, and all one in common."""
    rank = _join()
    runner, hook = _runner(work_dir, range(100)), UnreadableImagesHook(max_share, min_unreadable=0)
    hook.before_train(runner)
    for name in (f"{rank}.jpg", "common.jpg"):
        append_to_list(list_of_rank(str(work_dir), rank), name, "reason")
    try:
        hook.after_train_iter(runner, 0)
        hook.after_train_epoch(runner)
    except TooManyUnreadableError as error:
        return None, str(error)
    hook.after_train(runner)
    return runner.message_hub.get_info("unreadable_images"), ""
