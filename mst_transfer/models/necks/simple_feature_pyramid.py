"""ViTDet's pyramid from the last map of a plain ViT (arXiv 2203.16527, section 3), as a neck of mmdet.

The one map is scaled to every stride, then goes through a 1×1 and a 3×3 convolution, each followed by a norm over the
channels; a coarser map is every second cell of the coarsest. On sides that the largest stride divides (mmdet's
``pad_size_divisor=32``) all is equal to detectron2's ``SimpleFeaturePyramid`` with ``LastLevelMaxPool``. On other sides
maps keep a cell for the rest, where detectron2 refuses the image. Patches of 8 pixels, and of 14 and others that are no
power of two, are scaled as :mod:`mst_transfer.models.necks.pyramid` says.

Shapes: map [B, D, h, w] of patches of p pixels; results [B, C, ceil(h·p / s), ceil(w·p / s)] for each stride s.
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

from mst_transfer.models.necks.pyramid import STRIDES, build_resampler
from mst_transfer.registry import MODELS


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
