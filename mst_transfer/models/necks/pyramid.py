"""Four token grids of one ViT, resized to strides 4, 8, 16 and 32: what FPN takes from a ResNet.

With a patch of p pixels a grid has to be scaled by ``p / stride``. For p = 16 that is ×4, ×2, ×1 and ÷2, for
p = 8 it is ×2, ×1, ÷2 and ÷4. Steps of ×2 are learned (transposed convolutions, with LayerNorm and GELU
between two of them), ÷2 and ÷4 are max-pooled. Any other factor (p = 14, p = 12) takes the nearest power of
two in this way and the rest bilinearly, by exactly that factor, so that cell i of a map always starts at
pixel ``stride * i`` of the image, as anchors and RoIAlign assume.

Shapes: [B, D, h, w] token grids of an H×W image, h = ceil(H / p); maps are [B, D, ceil(H / s), ceil(W / s)].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mst_transfer.registry import MODELS

STRIDES = (4, 8, 16, 32)


class Rescale(nn.Module):
    """Scales a grid [B, D, h, w] bilinearly by ``factor``, after repeating its last row and column."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.padding = math.ceil(1 / factor)

    def forward(self, grid: Tensor) -> Tensor:
        grid = F.pad(grid, (0, self.padding, 0, self.padding), mode="replicate")
        return F.interpolate(grid, scale_factor=self.factor, mode="bilinear")

    def extra_repr(self) -> str:
        return f"factor={self.factor:g}"


def build_resampler(
    embed_dim: int, factor: float, halve: bool = False, norm: Callable[[int], nn.Module] = LayerNorm2d
) -> nn.Module:
    """The module that scales a grid of width D = ``embed_dim`` by ``factor`` (see the head of this file).

    Args:
        embed_dim: D.
        factor: new number of cells for each old one, along a side.
        halve: each learned step of ×2 halves the width, as in ViTDet.
        norm: makes the norm between two learned steps from its width.
    """
    power = round(math.log2(factor))
    layers: list[nn.Module] = []
    width = embed_dim
    for step in range(power):
        if step:
            layers += [norm(width), nn.GELU()]
        new_width = width // 2 if halve else width
        layers.append(nn.ConvTranspose2d(width, new_width, kernel_size=2, stride=2))
        width = new_width
    if power < 0:
        layers.append(nn.MaxPool2d(2**-power, stride=2**-power, ceil_mode=True))
    if factor != 2.0**power:
        layers.append(Rescale(factor / 2.0**power))
    return nn.Sequential(*layers) if layers else nn.Identity()


@MODELS.register_module()
class TokenPyramid(BaseModule):
    """Resizes four token grids to four strides.

    Args:
        embed_dim: width D of every grid.
        patch_size: side p of a patch in pixels.
        strides: stride of each map in pixels, finest first.

    Raises:
        ValueError: if a size is not positive or ``strides`` do not increase.
    """

    def __init__(self, embed_dim: int, patch_size: int, strides: Sequence[int] = STRIDES) -> None:
        super().__init__()
        if embed_dim < 1 or patch_size < 1:
            raise ValueError(f"embed_dim={embed_dim} and patch_size={patch_size} must be positive")
        if min(strides) < 1 or list(strides) != sorted(set(strides)):
            raise ValueError(f"strides={tuple(strides)} must be positive and increase, as in {STRIDES}")
        self.strides = tuple(strides)
        self.resamplers = nn.ModuleList(build_resampler(embed_dim, patch_size / s) for s in strides)

    def forward(self, grids: Sequence[Tensor], image_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Resizes.

        Args:
            grids: one token grid [B, D, h, w] a stride.
            image_size: height and width of the image before it was padded to whole patches.

        Returns:
            Maps [B, D, ceil(H / stride), ceil(W / stride)].
        """
        assert len(grids) == len(self.strides), f"{len(grids)} grids for {len(self.strides)} strides"
        height, width = image_size
        return tuple(
            resample(grid)[..., : math.ceil(height / stride), : math.ceil(width / stride)]
            for grid, resample, stride in zip(grids, self.resamplers, self.strides, strict=True)
        )
