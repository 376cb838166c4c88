"""Compares features: the check without which no converted file is kept.

Libraries resample position embeddings in different ways: at other sizes than the checkpoint's own the comparison is
with the original resampled as its target does it.

Shapes: N patches of a grid of h rows and w columns, P prefix tokens, D embedding width.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class Agreement:
    """A comparison that passed."""

    by: str  # what loaded the file again, e.g. ``timm.create_model``
    differences: dict[str, float]  # what was compared (an image size, a batch size) → largest absolute difference
    remarks: tuple[str, ...] = ()  # what a user of the file has to know

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


def image_of(size: Size) -> Tensor:
    """Fixed images [2, 3, H, W] of standard normal values."""
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def two_sizes(original: SourceModel) -> tuple[Size, Size]:
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
def features(model: Any, image: Tensor) -> Tensor:
    """A timm model's last features: tokens [B, N, D] of a ViT, the map [B, h, w, C] of a Swin."""
    return model.forward_features(image)


def largest_difference(what: str, expected: Tensor, found: Tensor) -> float:
    """The largest absolute difference of the original's features and those of the written file.

    Errors name what is compared, the difference and where it is; other shapes and NaN are errors too.
    """
    if expected.shape != found.shape:
        raise ConversionError(f"{what}: the original gives {tuple(expected.shape)}, the file {tuple(found.shape)}")
    difference = (expected.double() - found.double()).abs()
    largest = float(difference.max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not largest <= allowed:  # also for NaN
        worst = difference.nan_to_num(torch.inf).argmax()
        place = [int(index) for index in torch.unravel_index(worst, difference.shape)]
        raise ConversionError(
            f"{what}: the written file computes other features than the original: largest difference {largest:.3g} at "
            f"{place} of {list(difference.shape)} (allowed: {allowed:.1e}). Nothing was kept"
        )
    return largest


def size_in_words(size: Size) -> str:
    """``224x240``: height first."""
    return f"{size[0]}x{size[1]}"


def compare(
    by: str,
    sizes: Iterable[Size],
    expected: Callable[[Size], nn.Module],
    found: Callable[[Size, Tensor], Tensor],
    remarks: tuple[str, ...] = (),
) -> Agreement:
    """Compares features at several image sizes; ``by`` and ``remarks`` are those of the result.

    Args:
        expected: size → the original as a timm model.
        found: (size, image) → the features of the written file.
    """
    differences = {}
    for size in sizes:
        image, what = image_of(size), size_in_words(size)
        differences[what] = largest_difference(f"at {what}", features(expected(size), image), found(size, image))
    return Agreement(by, differences, remarks)


def read_back(original: SourceModel, path: Path) -> SourceModel:
    """What our own reader makes of a written file: a ValueError unless every tensor comes back, bit for bit."""
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


def resampling_remark(original: SourceModel, resample: Resample, library: str) -> tuple[str, ...]:
    """What to say if a library resamples otherwise than the checkpoint is meant to be; empty if it does not."""
    if "pos_embed" not in original.tensors:
        return ()
    size = two_sizes(original)[1]
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
