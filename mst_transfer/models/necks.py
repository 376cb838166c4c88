"""Necks: token grids of a ViT resized to the strides that detectors expect; and the norms of the heads behind them.

``TokenPyramid`` resizes four grids to strides 4, 8, 16 and 32: what FPN takes from a ResNet. With a patch of p
pixels a grid has to be scaled by ``p / stride``. For p = 16 that is ×4, ×2, ×1 and ÷2, for p = 8 it is ×2, ×1, ÷2 and
÷4. Steps of ×2 are learned (transposed convolutions, with LayerNorm and GELU between two of them), ÷2 and ÷4 are
max-pooled. Any other factor (p = 14, p = 12) takes the nearest power of two in this way and the rest bilinearly, by
exactly that factor, so that cell i of a map always starts at pixel ``stride * i`` of the image, as anchors and RoIAlign
assume.

``SimpleFeaturePyramid`` is ViTDet's (arXiv 2203.16527, section 3): the one last map is scaled so to every stride,
then goes through a 1×1 and a 3×3 convolution, each followed by a LayerNorm over the channels (eps 1e-6); a coarser map
is every second cell of the coarsest. On sides that the largest stride divides (mmdet's ``pad_size_divisor=32``) all is
equal to detectron2's ``SimpleFeaturePyramid`` with ``LastLevelMaxPool``. On other sides maps keep a cell for the rest,
where detectron2 refuses the image.

Norms, for the ``norm_cfg`` of mmcv's layers: ``mst_transfer.LN2d``, LayerNorm over the channels of each cell of a map
[B, C, H, W], as in ViTDet's heads (``dict(type="mst_transfer.LN2d", eps=1e-6)``; without eps theirs is 1e-5); and
``mst_transfer.GlooSyncBN``, what ``SyncBN`` becomes on several CPU processes.

Shapes: grid [B, D, h, w] of an H×W image, h = ceil(H / p); maps are [B, D or C, ceil(H / s), ceil(W / s)].
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mst_transfer.devices.cpu_processes import GlooSyncBatchNorm2d
from mst_transfer.registry import MODELS

STRIDES = (4, 8, 16, 32)

MODELS.register_module(name="LN2d", module=LayerNorm2d)
MODELS.register_module(name="GlooSyncBN", module=GlooSyncBatchNorm2d)


class Rescale(nn.Module):
    """Scales a grid [B, D, h, w] bilinearly by ``factor``, after repeating its last row and column."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.padding = math.ceil(1 / factor)

    def forward(self, grid: Tensor) -> Tensor:
        grid = F.pad(grid, (0, self.padding, 0, self.padding), mode="replicate")
        return F.interpolate(grid, scale_factor=self.factor, mode="bilinear")


def build_resampler(embed_dim: int, factor: float, halve: bool = False) -> nn.Module:
    """The module that scales the sides of a grid of width D = ``embed_dim`` by ``factor`` (see the head of this file).

    With ``halve`` each learned step of ×2 halves the width, as in ViTDet.
    """
    power = round(math.log2(factor))
    layers: list[nn.Module] = []
    width = embed_dim
    for step in range(power):
        if step:
            layers += [LayerNorm2d(width), nn.GELU()]
        new_width = width // 2 if halve else width
        layers.append(nn.ConvTranspose2d(width, new_width, kernel_size=2, stride=2))
        width = new_width
    if power < 0:
        layers.append(nn.MaxPool2d(2**-power, stride=2**-power, ceil_mode=True))
    if factor != 2.0**power:
        layers.append(Rescale(factor / 2.0**power))
    return nn.Sequential(*layers) if layers else nn.Identity()


class TokenPyramid(BaseModule):
    """Resizes four token grids of width D = ``embed_dim``, of patches of ``patch_size`` pixels, to ``STRIDES``."""

    def __init__(self, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.resamplers = nn.ModuleList(build_resampler(embed_dim, patch_size / stride) for stride in STRIDES)

    def forward(self, grids: Sequence[Tensor], image_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Maps [B, D, ceil(H / stride), ceil(W / stride)] from grids [B, D, h, w], one a stride, finest first.

        ``image_size`` is H and W before the image was padded to whole patches.
        """
        height, width = image_size
        return tuple(
            resample(grid)[..., : math.ceil(height / stride), : math.ceil(width / stride)]
            for grid, resample, stride in zip(grids, self.resamplers, STRIDES, strict=True)
        )


class Level(nn.Module):
    """One result: the map scaled by ``factor``, then the two convolutions."""

    def __init__(self, width: int, out_channels: int, factor: float) -> None:
        super().__init__()
        scaled = width // 2 ** max(round(math.log2(factor)), 0)
        self.resample = build_resampler(width, factor, halve=True)
        self.convolutions = nn.Sequential(
            nn.Conv2d(scaled, out_channels, kernel_size=1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )

    def forward(self, grid: Tensor, size: tuple[int, int]) -> Tensor:
        """Result [B, C, *size]; what lies beyond ``size`` is cut off before the convolutions."""
        return self.convolutions(self.resample(grid)[..., : size[0], : size[1]])


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps of several strides from one map of a plain ViT.

    Args:
        in_channels: width D of the map.
        out_channels: width C of the results.
        num_outs: number of results, at least 4; each beyond the strides 4 to 32 is every second cell of the one before.
        patch_size: side p of a patch in pixels.

    Raises:
        ValueError: if ``in_channels`` is not one number.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, num_outs: int = 5, patch_size: int = 16) -> None:
        super().__init__()
        if not isinstance(in_channels, int):
            raise ValueError(f"in_channels={in_channels} must be the width of the backbone's one map, e.g. 768")
        self.patch_size, self.num_outs = patch_size, num_outs
        self.levels = nn.ModuleList(Level(in_channels, out_channels, patch_size / stride) for stride in STRIDES)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One map [B, D, h, w] → results [B, C, ceil(h·p / s), ceil(w·p / s)], finest first.

        Raises:
            ValueError: if there is more than one map.
        """
        if len(inputs) != 1:
            raise ValueError(
                f"SimpleFeaturePyramid takes one map, not {len(inputs)}: give the backbone out_indices=(-1,), or take "
                "mst_transfer.TimmViTPyramid with mmdet's FPN"
            )
        (grid,) = inputs
        maps = []
        for level, stride in zip(self.levels, STRIDES, strict=True):
            height, width = (math.ceil(side * self.patch_size / stride) for side in grid.shape[-2:])
            maps.append(level(grid, (height, width)))
        for _ in range(self.num_outs - len(maps)):
            maps.append(F.max_pool2d(maps[-1], kernel_size=1, stride=2))
        return tuple(maps)
