"""What each of several processes does in the tests of lists of unreadable images."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mst_transfer.runs.unreadable_images import TooManyUnreadableError, append_to_list


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
    from mst_transfer.engine.image_checks import UnreadableImagesHook, list_of_rank
    from mst_transfer.runs.unreadable_images import UnreadableLimit

    runner, hook = _runner(work_dir, range(100)), UnreadableImagesHook(UnreadableLimit(max_share, 0))
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


def pretrain(work_dir: Path, images: Path) -> int:
    """Each process meets every other image of a folder."""
    rank = _join()
    import torch

    from pretrain.data.dataset import MultiCropDataset
    from pretrain.run.unreadable_images_hook import UnreadableImagesHook

    dataset = MultiCropDataset(images, global_size=32, local_size=16, num_local_crops=0)
    runner, hook = _runner(work_dir, dataset), UnreadableImagesHook(max_unreadable_share=1.0)
    hook.before_train(runner)
    for index in range(rank, len(dataset), 2):
        sample = dataset[index]
        hook.after_train_iter(runner, 0, [{name: torch.tensor([sample[name]]) for name in ("index", "num_unreadable")}])
    hook.after_train_epoch(runner)
    hook.after_train(runner)
    return int(runner.message_hub.get_info("num_unreadable_images"))
