"""Places tokens: absolute embeddings, rotations (RoPE) and relative biases of a timm ViT, on any grid.

timm's ``Beit`` holds tables of relative positions for one grid; here they are resampled to that of the batch, with the
interpolation that BEiT's authors use for fine-tuning at another resolution (nodes in geometric progression, dense in
the middle) in timm's linear form, so that features equal those of timm's model after ``set_input_size``.

Shapes: grid of h rows and w columns, N = h·w, P prefix tokens (class, distillation, registers), D width, H heads, T
entries of a table, (2h - 1)(2w - 1) + 3: the last three are prefix → patch, patch → prefix and prefix → prefix.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from mst_transfer.checkpoint.pos_embed import resample_pos_embed
from mst_transfer.models.backbones.vit_create import ViT
from mst_transfer.models.backbones.vit_windows import Windows

PREFIXES = ("cls_token", "dist_token", "reg_token")  # in timm's order


def prefix_tokens(vit: ViT) -> list[Tensor]:
    """The class, distillation and register tokens that a ViT has, each [1, n, D]."""
    tokens = (getattr(vit, name, None) for name in PREFIXES)
    return [token for token in tokens if token is not None]


def embed(vit: ViT, image: Tensor, interpolation: str) -> tuple[Tensor, tuple[int, int]]:
    """Image [B, C, H, W] → tokens [B, P + N, D] with absolute position embeddings, and the grid.

    Args:
        vit: a ViT of ``create_vit``; without prefix tokens if they have been removed.
        image: padded on the right and below to whole patches.
        interpolation: ``timm`` or ``dino``, for grids other than the model's own.
    """
    grid = vit.patch_embed.dynamic_feat_size(image.shape[-2:])
    tokens = vit.patch_embed(image)
    if tokens.ndim == 4:
        tokens = tokens.flatten(1, 2)
    prefix = prefix_tokens(vit)
    if vit.pos_embed is not None:
        num_prefix = 0 if getattr(vit, "no_embed_class", False) else vit.num_prefix_tokens
        positions = resample_pos_embed(vit.pos_embed, grid, vit.patch_embed.grid_size, num_prefix, interpolation)
        tokens = tokens + positions[:, num_prefix:]
        if num_prefix and prefix:
            prefix = [torch.cat(prefix, dim=1) + positions[:, :num_prefix]]
    if prefix:
        tokens = torch.cat([*(token.expand(len(tokens), -1, -1) for token in prefix), tokens], dim=1)
    tokens = vit.pos_drop(tokens)
    return getattr(vit, "norm_pre", nn.Identity())(tokens), grid


def window_rotations(rotation: Tensor, windows: Windows, batch_size: int) -> Tensor:
    """Rotations of the whole grid, cut into windows: [N, 2d] → [B·S, 1, size², 2d], [H, N, 2d] → [B·S, H, size², 2d].

    Attention sees differences of positions only, so a window may keep the coordinates it has in the whole grid; thus
    the scale is the same in windows and in global blocks. Padded cells are not rotated.
    """
    heads = rotation if rotation.ndim == 3 else rotation[None]
    if not windows.even:
        heads = heads - _no_rotation(heads)
    cut = windows.split(heads).unflatten(0, (len(heads), -1)).transpose(0, 1)  # [S, H or 1, size², 2d]
    if not windows.even:
        cut = cut + _no_rotation(cut)
    return cut.repeat(batch_size, 1, 1, 1)


def _no_rotation(like: Tensor) -> Tensor:
    """Sine 0 and cosine 1, [2d]."""
    return torch.arange(like.shape[-1], device=like.device).ge(like.shape[-1] // 2).to(like.dtype)


@functools.lru_cache(maxsize=64)
def _nodes(old: int, new: int) -> tuple[float, ...]:
    """Offsets, in cells of the new table, at which the ``old`` entries of one axis are placed; both numbers are odd."""
    half, reach = old // 2, new // 2
    low, high = 1.01, 1.5
    ratio = (low + high) / 2
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if (1 - ratio**half) / (1 - ratio) > reach else (ratio, high)
    steps = [ratio**power for power in range(half)]
    right = [sum(steps[: count + 1]) for count in range(half)]
    return (*(-offset for offset in reversed(right)), 0.0, *right)


@functools.lru_cache(maxsize=64)
def _axis_weights(old: int, new: int) -> Tensor:
    """Linear interpolation along one axis as a matrix [new, old]; constant beyond the outermost nodes."""
    nodes = torch.tensor(_nodes(old, new), dtype=torch.float64)
    wanted = torch.arange(-(new // 2), new // 2 + 1, dtype=torch.float64).clamp(nodes[0], nodes[-1])
    right = torch.bucketize(wanted, nodes).clamp(1, old - 1)
    share = (wanted - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    weights = torch.zeros(new, old, dtype=torch.float64)
    rows = torch.arange(new)
    weights[rows, right - 1] = 1 - share
    weights[rows, right] = share
    return weights.float()


def resample_table(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A table of relative positions [T, H] of one grid, for another; differentiable; itself where grids are equal."""
    if old == new:
        return table
    old_sides, new_sides = ([2 * side - 1 for side in grid] for grid in (old, new))
    weights = [
        (_axis_weights(a, b) if a != b and a > 1 else torch.eye(b, a) if a == b else torch.ones(b, a)).to(table.device)
        for a, b in zip(old_sides, new_sides, strict=True)
    ]
    cells = table[:-3].float().unflatten(0, old_sides)
    cells = torch.einsum("yv,xu,vuh->yxh", *weights, cells).flatten(0, 1)
    return torch.cat([cells.to(table.dtype), table[-3:]])


def relative_entries(
    grid: tuple[int, int], num_prefix: int, device: torch.device, windows: Windows | None = None
) -> Tensor:
    """Which entry of a table of ``grid`` each pair of its tokens takes, [P + N, P + N].

    The patches are in the order of ``windows``, or in rows.
    """
    places = torch.cartesian_prod(*(torch.arange(side, device=device) for side in grid))  # [N, 2], row and column
    if windows is not None:
        places = windows.order(places[None])[0]
    difference = places[:, None] - places[None]  # [N, N, 2]
    columns = 2 * grid[1] - 1
    patches = (difference[..., 0] + grid[0] - 1) * columns + difference[..., 1] + grid[1] - 1
    if num_prefix == 0:
        return patches
    count = (2 * grid[0] - 1) * columns
    entries = patches.new_full((num_prefix + len(places),) * 2, count + 2)
    entries[:num_prefix, num_prefix:] = count
    entries[num_prefix:, :num_prefix] = count + 1
    entries[num_prefix:, num_prefix:] = patches
    return entries


def relative_bias(table: Tensor, old: tuple[int, int], grid: tuple[int, int], entries: Tensor) -> Tensor:
    """Bias [H, P + N, P + N] of tokens of ``grid`` with these ``entries`` from a table [T, H] of the grid ``old``."""
    values = resample_table(table, old, grid).t()
    return values.index_select(1, entries.flatten()).unflatten(1, entries.shape)
