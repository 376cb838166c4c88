"""Resamples BEiT's tables of relative positions, which timm holds for one grid, to that of the batch.

With the interpolation that BEiT's authors use for fine-tuning at another resolution (nodes in geometric progression,
dense in the middle) in timm's linear form, so that features equal those of timm's model after ``set_input_size``; and
several times faster than by timm's function, on the table's own device.

Shapes: H heads, T entries of a table of a grid of h rows and w columns, (2h - 1)(2w - 1) + 3: the last three are class
token → patch, patch → class token and class token → itself.
"""

import functools

import torch
from torch import Tensor


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
