"""Several processes on the CPU, over gloo: ``DistributedDataParallel``, and batch normalisation over all their images.

torch's ``SyncBatchNorm`` runs on GPUs only; under gloo the moments are reduced here.
"""

from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper without the device id that a Runner always passes, which DDP refuses on the CPU."""

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **kwargs: Any) -> None:
        super().__init__(module=module, **kwargs)


def build_batch_norm(num_channels: int, plain: type[nn.Module] = nn.BatchNorm2d, **options: Any) -> nn.Module:
    """BatchNorm over the global batch: torch's own on GPUs, ours under gloo, the ``plain`` one in a single process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return plain(num_channels, **options)
    if torch.cuda.is_available() and dist.get_backend() != "gloo":
        return nn.SyncBatchNorm(num_channels, **options)
    return GlooSyncBatchNorm2d(num_channels, **options)


class GlooSyncBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose training statistics cover the batches of every process, which may differ in size.

    Same parameters, buffers and evaluation as ``nn.BatchNorm2d``. As in ``SyncBatchNorm`` inputs are [B, C, ...], and
    in training every process must come by, forwards and backwards.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"GlooSyncBatchNorm2d takes [B, C, ...], got shape {list(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] → the same shape."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        self._check_input_dim(x)
        values, others = x.float(), [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = values.new_tensor([x.numel() // x.shape[1]])
        sums = all_reduce(torch.cat([values.sum(dim=others), count]))
        total = sums[-1].detach().clamp_min(1)
        mean = sums[:-1] / total  # [C]
        centred = values - mean.view(shape)
        variance = all_reduce(centred.square().sum(dim=others)) / total
        self._track(mean.detach(), variance.detach(), total)
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (total / (total - 1).clamp_min(1)), momentum)
