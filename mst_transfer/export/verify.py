"""Compares features: the check without which no converted file is kept.

Libraries resample position embeddings in different ways: at other sizes than the checkpoint's own the comparison is
with the original resampled as its target does it.

Shapes: N patches of a grid of h rows and w columns, P prefix tokens, D embedding width.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mst_transfer.checkpoint import load_backbone
from mst_transfer.checkpoint.pos_embed import resample_pos_embed
from mst_transfer.export.source_model import ConversionError, Resample, SourceModel

OUR_READER = "mst_transfer's reader of this layout"
TOLERANCE = 1e-4  # of the largest feature, or absolute where that is below 1


@dataclass(frozen=True)
class Agreement:
    """A comparison that passed.

    Attributes:
        by: what loaded the file again, e.g. ``timm.create_model``.
        differences: what was compared (an image size, a batch size), and the largest absolute difference.
        remarks: what a user of the file has to know.
    """

    by: str
    differences: dict[str, float]
    remarks: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """The comparison as text."""
        rows = [f"  {what}: largest difference {value:.1e}" for what, value in self.differences.items()]
        return [f"loaded again by {self.by}; features against the original's:", *rows]


def imported(module: str) -> tuple[Any, tuple[str, ...]]:
    """A module of a target's library; else None, and a remark that the library was not asked."""
    try:
        return importlib.import_module(module), ()
    except Exception as error:  # not installed, or broken by the versions of what it needs
        reason = f"cannot be imported here ({type(error).__name__}: {error}), so its own class was not asked"
        return None, (f"{module.partition('.')[0]} {reason}",)


def image_of(size: tuple[int, int], batch: int = 2) -> Tensor:
    """A fixed image [batch, 3, H, W] of standard normal values."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def two_sizes(original: SourceModel) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size that the checkpoint was made for, and a larger rectangle.

    For a Swin whole windows in every stage, two and three of them in the last: libraries pad other maps in different
    ways (timm after the shift, the others before it).
    """
    height, width = original.metadata.img_size
    if original.is_swin():
        side = original.window_size() * int(original.skeleton.feature_info[-1]["reduction"])
        return (height, width), (2 * side, 3 * side)
    step = original.metadata.patch_size
    return (height, width), (height + step, width + 2 * step)


@torch.no_grad()
def features(model: nn.Module, image: Tensor) -> Tensor:
    """A timm model's last features: tokens [B, N, D] of a ViT, the map [B, h, w, C] of a Swin."""
    timm_model: Any = model
    result: Tensor = timm_model.forward_features(image)
    return result


def largest_difference(what: str, expected: Tensor, found: Tensor, tolerance: float = TOLERANCE) -> float:
    """The largest absolute difference of the original's features and those of the written file.

    Args:
        what: what is compared, for the message.
        tolerance: allowed, relative to the largest absolute feature or to 1.

    Raises:
        ConversionError: names the difference and where it is; also for other shapes and for NaN.
    """
    if expected.shape != found.shape:
        raise ConversionError(f"{what}: the original gives {tuple(expected.shape)}, the file {tuple(found.shape)}")
    difference = (expected.double() - found.double()).abs()
    largest = float(difference.max())
    scale = max(1.0, float(expected.abs().max()))
    if not largest <= tolerance * scale:  # also for NaN
        worst = difference.nan_to_num(torch.inf).argmax()
        place = [int(index) for index in torch.unravel_index(worst, difference.shape)]
        raise ConversionError(
            f"{what}: the written file computes other features than the original: largest difference {largest:.3g} at "
            f"{place} of {list(difference.shape)} (allowed: {tolerance * scale:.1e}). Nothing was kept"
        )
    return largest


def size_in_words(size: tuple[int, int]) -> str:
    """``224x240``: height first."""
    return f"{size[0]}x{size[1]}"


def compare_at(
    sizes: tuple[tuple[int, int], ...],
    expected: Callable[[tuple[int, int], Tensor], Tensor],
    found: Callable[[tuple[int, int], Tensor], Tensor],
) -> dict[str, float]:
    """Largest differences at several image sizes.

    Args:
        expected: (size, image) → the original's features.
        found: (size, image) → the features of the written file.

    Raises:
        ConversionError: they differ.
    """
    differences = {}
    for size in sizes:
        image = image_of(size)
        what = size_in_words(size)
        differences[what] = largest_difference(f"at {what}", expected(size, image), found(size, image))
    return differences


def read_back(original: SourceModel, path: Path) -> SourceModel:
    """What our own reader makes of a written file: every tensor must come back, bit for bit.

    Raises:
        ConversionError: names the first that differs.
        ValueError: our reader refuses the file.
    """
    model = original.model()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(torch.nan)
    load_backbone(model, path, role=original.metadata.role)
    loaded = model.state_dict()
    wrong = [name for name, tensor in original.tensors.items() if not torch.equal(loaded[name], tensor.float())]
    if wrong:
        raise ConversionError(
            f"mst_transfer's reader gets {len(wrong)} of {len(loaded)} tensors of the written file otherwise, first "
            f"{wrong[0]}. Nothing was kept"
        )
    return SourceModel(path, loaded, original.metadata)


as_timm: Resample = partial(resample_pos_embed, interpolation="timm")


def plain_bicubic(pos_embed: Tensor, new: tuple[int, int], old: tuple[int, int], num_prefix: int) -> Tensor:
    """Bicubic to the new sides without smoothing, as mmpretrain, detectron2 and transformers' ViT and DINOv2 do."""
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    grid = patches.unflatten(1, old).permute(0, 3, 1, 2)  # [1, D, h, w]
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)


def resampling_remark(
    original: SourceModel, size: tuple[int, int], resample: Resample, library: str
) -> tuple[str, ...]:
    """What to say if a library resamples otherwise than the checkpoint is meant to be; empty if it does not.

    Args:
        size: height and width other than the checkpoint's own.
        resample: the library's way.
    """
    if "pos_embed" not in original.tensors:
        return ()
    image = image_of(size)
    own, theirs = features(original.model(size), image), features(original.model(size, resample), image)
    difference = float((own - theirs).abs().max())
    if difference <= 1e-5:
        return ()
    return (
        f"at sizes other than {size_in_words(original.metadata.img_size)} {library} resamples position embeddings in "
        f"another way than this checkpoint is used here ({original.metadata.pos_embed_interpolation}): features differ "
        f"by up to {difference:.1e} at {size_in_words(size)}",
    )
