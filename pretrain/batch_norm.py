"""Batch normalisation over the batch of all processes, on any device."""

import torch
from torch import distributed as dist
from torch import nn

from mst_transfer.devices.cpu_processes import GlooSyncBatchNorm2d


def build_batch_norm(num_channels: int) -> nn.Module:
    """BatchNorm over the global batch: torch's own on GPUs, ours under gloo, the plain one in a single process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return nn.BatchNorm2d(num_channels)
    if torch.cuda.is_available() and dist.get_backend() != "gloo":
        return nn.SyncBatchNorm(num_channels)
    return GlooSyncBatchNorm2d(num_channels)
