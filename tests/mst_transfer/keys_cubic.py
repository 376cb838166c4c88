"""Bicubic resampling (Keys, a = -0.75) as a plain loop: the oracle of position embeddings."""

import math

import torch
from torch import Tensor


def kernel(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def weights(new: int, old: int, step: float) -> Tensor:
    """[new, old], cell by cell, ``step`` old cells apart; borders repeated, no smoothing."""
    matrix = torch.zeros(new, old)
    for i in range(new):
        place = (i + 0.5) * step - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            matrix[i, min(max(j, 0), old - 1)] += kernel(place - j)
    return matrix


def resampled(pos_embed: Tensor, old: tuple[int, int], new: tuple[int, int], more: float = 0.0) -> Tensor:
    """[1, 1 + N, D] at the scale of ``(new + more) / old``; the prefix token stays as it is."""
    matrices = [weights(after, before, before / (after + more)) for after, before in zip(new, old, strict=True)]
    grid = torch.einsum("yi,xj,ijd->yxd", *matrices, pos_embed[0, 1:].unflatten(0, old))
    return torch.cat([pos_embed[:, :1], grid.flatten(0, 1)[None]], dim=1)
