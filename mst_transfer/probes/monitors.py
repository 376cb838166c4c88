"""Tells a healthy run from a collapsed one without a label."""

import math

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values: how many directions features use (RankMe).

    Garrido et al., "RankMe", ICML 2023, equation 1; without its 1e-7, which only matters where it is NaN. Features
    [n, D], n >= 1 → in [1, min(n, D)]; 1 when all features point the same way, or are zero; NaN if one is not finite.
    """
    if not bool(features.isfinite().all()):
        return math.nan
    values = torch.linalg.svdvals(features.float())
    share = values / values.sum().clamp_min(torch.finfo(torch.float32).tiny)
    return math.exp(torch.special.entr(share).sum().item())


@torch.no_grad()
def prototypes_in_use(logits: Tensor, center: Tensor, temperature: float) -> float:
    """exp of the entropy of the teacher's mean output: how many prototypes a set of views shares out.

    The teacher's logits [n, K], center [K] or [1, K] and temperature → in [1, K]; 1 when every view falls on the same
    prototype. Bounded by n too when outputs are sharp.
    """
    mean = ((logits.float() - center.float()) / temperature).softmax(dim=-1).mean(dim=0)
    return math.exp(torch.special.entr(mean).sum().item())
