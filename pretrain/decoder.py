"""The global image decoder: restores the whole view from all patch tokens (MST, section 3.3).

Legend: B views, h * w patch tokens of width D.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mst_transfer.devices.cpu_processes import build_batch_norm


def upsampling_factors(stride: int) -> list[int]:
    """Factors, one a stage, whose product is the stride: twos first, then what is left (12 → 2, 2, 3)."""
    factors, rest = [], stride
    while rest % 2 == 0:
        factors.append(2)
        rest //= 2
    if rest > 1:
        factors.append(rest)
    return factors


class RestoringDecoder(nn.Module):
    """Stages of 3x3 convolution, BatchNorm, ReLU, bilinear up-sampling until the stride is undone, then RGB.

    The 1x1 convolution to RGB commutes with bilinear interpolation (whose weights sum to 1 and act on each channel
    alone), so it runs *before* the last up-sampling: the same function (tested) at a fraction of the memory traffic.

    Args:
        in_dim: width D of the patch tokens.
        stride: pixels between neighbouring tokens: the patch size of a ViT, 32 for Swin.
        channels: output channels of each stage; the last value repeats when there are more stages, values beyond
            the number of stages are not used. [ours]
    """

    def __init__(self, in_dim: int, stride: int, channels: Sequence[int] = (256, 128, 64, 32)) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"decoder.channels = {list(channels)} must hold at least one positive number of channels")
        self.factors = upsampling_factors(stride)
        stages, width = [], in_dim
        for index in range(len(self.factors)):
            out = channels[min(index, len(channels) - 1)]
            stages.append(
                nn.Sequential(
                    nn.Conv2d(width, out, 3, padding=1, bias=False),
                    build_batch_norm(out),
                    nn.ReLU(inplace=True),
                )
            )
            width = out
        self.stages = nn.ModuleList(stages)
        self.to_rgb = nn.Conv2d(width, 3, 1)

    def forward(self, patch_tokens: Tensor) -> Tensor:
        """[B, h, w, D] → restored, normalised views [B, 3, h * stride, w * stride]."""
        x = patch_tokens.permute(0, 3, 1, 2)  # [B, D, h, w]
        for index, (stage, factor) in enumerate(zip(self.stages, self.factors, strict=True)):
            x = stage(x)
            if index == len(self.factors) - 1:
                x = self.to_rgb(x)
            with torch.autocast(x.device.type, enabled=False):  # CUDA's would take float32, and twice the memory
                x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        return x if self.factors else self.to_rgb(x)
