"""Necks: token grids of a ViT resized to the strides that detectors expect; and the norms of the heads behind them.

:class:`TokenPyramid` resizes four grids to strides 4, 8, 16 and 32: what FPN takes from a ResNet. With a patch of p
pixels a grid has to be scaled by ``p / stride``. For p = 16 that is ×4, ×2, ×1 and ÷2, for p = 8 it is ×2, ×1, ÷2 and
÷4. Steps of ×2 are learned (transposed convolutions, with LayerNorm and GELU between two of them), ÷2 and ÷4 are
max-pooled. Any other factor (p = 14, p = 12) takes the nearest power of two in this way and the rest bilinearly, by
exactly that factor, so that cell i of a map always starts at pixel ``stride * i`` of the image, as anchors and RoIAlign
assume.

:class:`SimpleFeaturePyramid` is ViTDet's (arXiv 2203.16527, section 3): the one last map is scaled so to every stride,
then goes through a 1×1 and a 3×3 convolution, each followed by a norm over the channels; a coarser map is every second
cell of the coarsest. On sides that the largest stride divides (mmdet's ``pad_size_divisor=32``) all is equal to
detectron2's ``SimpleFeaturePyramid`` with ``LastLevelMaxPool``. On other sides maps keep a cell for the rest, where
detectron2 refuses the image.

Norms, for the ``norm_cfg`` of mmcv's layers: ``mst_transfer.LN2d``, LayerNorm over the channels of each cell of a map
[B, C, H, W], as in ViTDet's heads (``dict(type="mst_transfer.LN2d", eps=1e-6)``; without eps theirs is 1e-5); and
``mst_transfer.GlooSyncBN``, what ``SyncBN`` becomes on several CPU processes.

Shapes: grid [B, D, h, w] of an H×W image, h = ceil(H / p); maps are [B, D or C, ceil(H / s), ceil(W / s)].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
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


class Level(nn.Module):
    """One result: the map scaled by ``factor``, then the two convolutions.

    Raises:
        ValueError: if the width cannot be halved often enough.
    """

    def __init__(
        self, width: int, out_channels: int, factor: float, norm: Callable[[int], nn.Module], bias: bool
    ) -> None:
        super().__init__()
        scaled = width // 2 ** max(round(math.log2(factor)), 0)
        if scaled < 1:
            raise ValueError(f"in_channels={width} is too small: it is halved for each of log2({factor:g}) steps of ×2")
        self.resample = build_resampler(width, factor, halve=True, norm=norm)
        self.convolutions = nn.Sequential(
            nn.Conv2d(scaled, out_channels, kernel_size=1, bias=bias),
            norm(out_channels),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=bias),
            norm(out_channels),
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
        num_outs: number of results; those beyond ``strides`` are max-pooled (every second cell) from the one before.
        patch_size: side p of a patch in pixels.
        strides: of the results in pixels, finest first.
        norm_cfg: ``dict(type="LN2d")``: LayerNorm over the channels of each cell (eps 1e-6); another norm of mmcv's,
            e.g. ``dict(type="SyncBN")``; None: convolutions with biases and no norms.
        init_cfg: of mmengine; None: PyTorch's own initialisation, as detectron2 has it.

    Raises:
        ValueError: if an argument is not one of the values above.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        num_outs: int = 5,
        patch_size: int = 16,
        strides: Sequence[int] = STRIDES,
        norm_cfg: dict | None = dict(type="LN2d"),  # noqa: B006 - read only
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not isinstance(in_channels, int) or in_channels < 1 or out_channels < 1 or patch_size < 1:
            raise ValueError(
                f"in_channels={in_channels}, out_channels={out_channels} and patch_size={patch_size} must be positive "
                "numbers; in_channels is the width of the backbone's one map, e.g. 768"
            )
        if min(strides) < 1 or any(b != 2 * a for a, b in zip(strides[:-1], strides[1:], strict=True)):
            raise ValueError(f"strides={tuple(strides)} must double from one to the next, as in {STRIDES}")
        if num_outs < len(strides):
            raise ValueError(f"num_outs={num_outs} is less than the {len(strides)} strides {tuple(strides)}")
        self.patch_size, self.strides, self.num_outs = patch_size, tuple(strides), num_outs
        norm = _norm_maker(norm_cfg)
        self.levels = nn.ModuleList(
            Level(in_channels, out_channels, patch_size / stride, norm, bias=norm_cfg is None) for stride in strides
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Results [B, C, ceil(h·p / s), ceil(w·p / s)], finest first.

        Args:
            inputs: one map [B, D, h, w].

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
        for level, stride in zip(self.levels, self.strides, strict=True):
            height, width = (math.ceil(side * self.patch_size / stride) for side in grid.shape[-2:])
            maps.append(level(grid, (height, width)))
        for _ in range(self.num_outs - len(maps)):
            maps.append(F.max_pool2d(maps[-1], kernel_size=1, stride=2))
        return tuple(maps)


def _norm_maker(norm_cfg: dict | None) -> Callable[[int], nn.Module]:
    """Makes a norm from its width."""
    if norm_cfg is None:
        return lambda width: nn.Identity()
    if norm_cfg.get("type") != "LN2d":
        return lambda width: build_norm_layer(norm_cfg, width)[1]
    options = {name: value for name, value in norm_cfg.items() if name != "type"}
    trained = options.pop("requires_grad", True)
    if set(options) - {"eps"}:
        raise ValueError(f"norm_cfg={norm_cfg}: LN2d takes eps and requires_grad only")
    make = partial(LayerNorm2d, **options)
    return lambda width: make(width).requires_grad_(trained)
