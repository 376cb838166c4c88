"""Features of a whole data set, on one process or many."""

import sys
import time
from collections.abc import Callable

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from mst_transfer.devices.onednn_products import quick_products
from pretrain.data.dataset import worker_init
from pretrain.evaluate.labelled_images import LabelledImages

FeatureFunction = Callable[[Tensor], Tensor]
_NOTICE_SECONDS = 10.0


@torch.no_grad()
def extract_features(
    function: FeatureFunction,
    dataset: LabelledImages,
    *,
    batch_size: int = 256,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    title: str = "features",
) -> tuple[Tensor, Tensor]:
    """Features of every image, in the data set's order, the same on every process.

    Each process takes every so-manieth image; nothing is padded, so nothing counts twice.

    Args:
        function: uint8 views [B, 3, S, S] on ``device`` → [B, D].
        dataset: of n images.
        batch_size: of one process.
        num_workers: loading processes of one process.
        device: where the features are computed.
        title: of the progress line.

    Returns:
        float32 [n, D] and int64 [n], on the CPU.
    """
    rank, world = get_rank(), get_world_size()
    mine = range(rank, len(dataset), world)
    loader = DataLoader(
        Subset(dataset, mine), batch_size=batch_size, num_workers=num_workers, worker_init_fn=worker_init
    )
    parts, done, start = [], 0, time.monotonic()
    notice = start
    for views, _, _ in loader:
        with quick_products(device):
            parts.append(function(views.to(device, non_blocking=True)).float().cpu())
        done += len(views)
        if is_main_process() and time.monotonic() - notice > _NOTICE_SECONDS:
            notice = time.monotonic()
            left = (notice - start) / done * (len(mine) - done)
            print(f"{title}: {done * world:,} of {len(dataset):,} images, {left:.0f} s left", file=sys.stderr)
    shard = torch.cat(parts) if parts else None
    return _gather(shard, len(dataset)), torch.tensor(dataset.labels)


def _gather(shard: Tensor | None, total: int) -> Tensor:
    """The processes' rows (rank, rank + world, …) in the order of the data set."""
    shards = all_gather_object(shard)
    width = next(part.shape[1] for part in shards if part is not None)
    rows = torch.empty(total, width)
    for rank, part in enumerate(shards):
        if part is not None:
            rows[rank :: len(shards)] = part
    return rows
