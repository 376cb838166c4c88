"""Batch normalisation over the batch of all processes, on any device.

torch's ``SyncBatchNorm`` runs on GPUs only; under gloo the moments are reduced here.
"""

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce


class GlooSyncBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose training statistics cover the equal-sized batches of every process.

    Same parameters, buffers and evaluation as ``nn.BatchNorm2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H, W]."""
        if not self.training:
            return super().forward(x)
        world = dist.get_world_size()
        values = x.float()
        mean = all_reduce(values.mean(dim=(0, 2, 3))) / world  # [C]
        centred = values - mean[None, :, None, None]
        variance = all_reduce(centred.square().mean(dim=(0, 2, 3))) / world
        with torch.no_grad():
            count = world * x.shape[0] * x.shape[2] * x.shape[3]
            momentum = 0.1 if self.momentum is None else self.momentum
            assert self.running_mean is not None and self.running_var is not None
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * (count / max(count - 1, 1)), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[None, :, None, None] + self.bias[None, :, None, None]).to(x.dtype)


def build_batch_norm(num_channels: int) -> nn.Module:
    """BatchNorm over the global batch: torch's own on GPUs, ours under gloo, the plain one in a single process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return nn.BatchNorm2d(num_channels)
    if torch.cuda.is_available() and dist.get_backend() != "gloo":
        return nn.SyncBatchNorm(num_channels)
    return GlooSyncBatchNorm2d(num_channels)


__all__ = ["GlooSyncBatchNorm2d", "build_batch_norm"]
