"""Position embeddings on another grid of patches: timm's resampling, or DINO's.

Both are bicubic. ``timm`` maps the old grid's borders onto the new one's and smooths before it shrinks
(antialias). ``dino`` scales by (new side + 0.1) / (old side), without smoothing: the sampling points are
shifted by a fraction of a cell, so features at 96 px of a net trained at 224 px differ visibly between the two. A
checkpoint should be used with the resampling that it was trained with.

Shapes: N patches of a grid of h rows and w columns, P prefix tokens (class, registers), D embedding width.
"""

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mst_transfer.checkpoint.errors import BackboneRefusedError

INTERPOLATIONS = ("timm", "dino")
MARK = "dino_pos_embed"  # buffer beside a ViT in checkpoints of whole models, there if it resamples as DINO does


def check_interpolation(interpolation: str) -> None:
    """Raises ValueError for an unknown name."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"pos_embed_interpolation={interpolation!r} is not supported; allowed: {INTERPOLATIONS}")


def resample_pos_embed(
    pos_embed: Tensor,
    new_grid: Sequence[int],
    old_grid: Sequence[int],
    num_prefix: int,
    interpolation: str = "timm",
) -> Tensor:
    """Position embeddings [1, P + N, D] of another grid of rows and columns; the given tensor itself where it is equal.

    The prefix, of P tokens, stays as it is.
    """
    check_interpolation(interpolation)
    if tuple(new_grid) == tuple(old_grid):
        return pos_embed
    if interpolation == "timm":
        return resample_abs_pos_embed(pos_embed, list(new_grid), list(old_grid), num_prefix_tokens=num_prefix)
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    grid = patches.float().unflatten(1, tuple(old_grid)).permute(0, 3, 1, 2)  # [1, D, h, w]
    scale = tuple((new + 0.1) / old for new, old in zip(new_grid, old_grid, strict=True))
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    assert grid.shape[-2:] == tuple(new_grid)
    return torch.cat([prefix, grid.flatten(2).transpose(1, 2).to(pos_embed.dtype)], dim=1)


def use_pos_embed_interpolation(vit: nn.Module, interpolation: str) -> None:
    """Has a timm ViT with ``dynamic_img_size=True`` resample its position embeddings in one of the two ways.

    timm offers no option for it, so the method that adds the embeddings is replaced on this one object; copies of
    the object follow, its tensors stay as they are.

    Raises:
        ValueError: ``dino`` for another class, whose position embeddings are of another kind.
    """
    check_interpolation(interpolation)
    if interpolation == "dino" and not isinstance(vit, VisionTransformer):
        raise ValueError(
            f"pos_embed_interpolation='dino' is for timm's VisionTransformer; this is a {type(vit).__name__}, whose "
            "position embeddings are of another kind: leave it out"
        )
    vars(vit).pop("_pos_embed", None)
    if interpolation == "dino":
        vars(vit)["_pos_embed"] = MethodType(_add_pos_embed_as_dino, vit)


def mark_interpolation(owner: nn.Module, interpolation: str) -> None:
    """Gives the module that holds a ViT the buffer ``MARK``, or takes it away: its checkpoints then tell."""
    if hasattr(owner, MARK):
        delattr(owner, MARK)
    if interpolation == "dino":
        owner.register_buffer(MARK, torch.ones((), dtype=torch.uint8))


PREFIXES = ("cls_token", "dist_token", "reg_token")  # in timm's order


def prefix_tokens(vit: Any) -> list[Tensor]:
    """The class, distillation (DeiT's) and register tokens that a timm ViT has, each [1, its number, D]."""
    return [token for name in PREFIXES if (token := getattr(vit, name, None)) is not None]


def add_pos_embed(vit: Any, patches: Tensor, grid: Sequence[int], interpolation: str) -> Tensor:
    """Patch embeddings [B, N, D] of a grid → a timm ViT's tokens [B, P + N, D], with position embeddings if it has any.

    Its prefix tokens may have been removed: P = 0.
    """
    prefix = prefix_tokens(vit)
    if vit.pos_embed is not None:
        num_prefix = 0 if getattr(vit, "no_embed_class", False) else vit.num_prefix_tokens
        positions = resample_pos_embed(vit.pos_embed, grid, vit.patch_embed.grid_size, num_prefix, interpolation)
        patches = patches + positions[:, num_prefix:]
        if num_prefix and prefix:
            prefix = [torch.cat(prefix, dim=1) + positions[:, :num_prefix]]
    return vit.pos_drop(torch.cat([*(token.expand(len(patches), -1, -1) for token in prefix), patches], dim=1))


def _add_pos_embed_as_dino(vit: Any, x: Tensor) -> Tensor:
    """Patch embeddings [B, h, w, D] → tokens."""
    return add_pos_embed(vit, x.flatten(1, 2), x.shape[1:3], "dino")


def fit_pos_embed(
    model: nn.Module, pos_embed: Tensor, grid: tuple[int, int] | None, interpolation: str, source: str
) -> tuple[Tensor, str]:
    """Resamples a checkpoint's ``pos_embed`` [1, P + N, D], made for ``grid`` (None: a square), to that of a timm ViT.

    Returns:
        The embeddings, and what was done, e.g. ``14x14 -> 6x8``; empty if nothing.

    Raises:
        BackboneRefusedError: if its shape is another, or the number of tokens not that of the grid and the model's
            prefix.
    """
    vit: Any = model
    if pos_embed.ndim != 3 or len(pos_embed) != 1:
        raise BackboneRefusedError(
            f"{source}: pos_embed has the shape {list(pos_embed.shape)}, but one of [1, tokens, width] is needed; "
            "take the file from its source again, or convert it to timm's layout"
        )
    rows, columns = vit.patch_embed.grid_size
    num_prefix = 0 if getattr(vit, "no_embed_class", False) else vit.num_prefix_tokens  # Beit has no such option
    num_patches = pos_embed.shape[1] - num_prefix
    old = grid or (math.isqrt(max(num_patches, 0)),) * 2
    if num_patches < 1 or old[0] * old[1] != num_patches:
        raise BackboneRefusedError(
            f"{source}: pos_embed has {pos_embed.shape[1]} tokens, which is not {num_prefix} prefix token(s) "
            f"and a {old[0]}x{old[1]} grid; choose an arch with the checkpoint's class and register tokens"
        )
    if old == (rows, columns):
        return pos_embed, ""
    resampled = resample_pos_embed(pos_embed, (rows, columns), old, num_prefix, interpolation)
    how = "" if interpolation == "timm" else f" ({interpolation})"
    return resampled, f"{old[0]}x{old[1]} -> {rows}x{columns}{how}"
