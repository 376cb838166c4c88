"""Which patches the student does not get to see (MST, section 3.2).

A mask is a boolean tensor, True where a patch is hidden. The attention-guided mask hides only patches that the
teacher attends to *least*, so that the cross-entropy still sees what matters in the image.
"""

import torch
from torch import Tensor

from pretrain.counter_random import derive_key, uniform

MODES = ("attention", "random", "none")


def attention_guided_mask(importance: Tensor, num: int, p: float, draws: Tensor | None = None) -> Tensor:
    """Hide each of the ``N // num`` least attended patches with probability ``p``.

    Ties are broken by position (a stable sort), so that the count is exact.

    Args:
        importance: [B, N], attention that each patch receives from the class token.
        num: the lowest 1/num of the patches are candidates; >= 1.
        p: probability that a candidate is hidden, in [0, 1].
        draws: uniform numbers [B, N] in [0, 1), one a patch; may be left out when ``p`` is 1.

    Returns:
        bool [B, N], True where hidden.
    """
    num_candidates = importance.shape[1] // num
    candidates = importance.argsort(dim=1, stable=True)[:, :num_candidates]
    mask = torch.zeros_like(importance, dtype=torch.bool).scatter_(1, candidates, True)
    if p >= 1:
        return mask
    if draws is None:
        raise ValueError(f"attention_guided_mask: p = {p} needs draws [B, N], got None")
    return mask & (draws < p)


def random_mask(draws: Tensor, p: float) -> Tensor:
    """Hide every patch with probability ``p``, whatever it shows: the paper's ablation.

    Args:
        draws: uniform numbers [B, N] in [0, 1).
        p: in [0, 1].
    """
    return draws < p


class MaskGenerator:
    """Masks for the global views of a step.

    Args:
        mode: ``attention`` (MST), ``random`` (Bernoulli over all patches) or ``none`` (plain DINO).
        num: see :func:`attention_guided_mask`; 8 is our choice, the paper gives no value.
        p: probability; ``attention``: of a candidate, ``random``: of any patch.
        seed: with the step and the sample's index it determines every draw.
    """

    def __init__(self, mode: str = "attention", num: int = 8, p: float = 1.0, seed: int = 0) -> None:
        if mode not in MODES:
            raise ValueError(f"masking.mode = {mode!r} is not known; choose one of {', '.join(MODES)}")
        if num < 1 or int(num) != num:
            raise ValueError(f"masking.num = {num!r} must be a whole number >= 1: the lowest 1/num are candidates")
        if not 0 <= p <= 1:
            raise ValueError(f"masking.p = {p!r} is a probability: choose it in [0, 1]")
        if mode == "random" and p == 1:
            raise ValueError("masking: mode 'random' with p = 1 hides every patch; choose p < 1, e.g. p=0.125")
        self.mode, self.num, self.p, self.seed = mode, int(num), float(p), seed

    @property
    def needs_importance(self) -> bool:
        return self.mode == "attention"

    def __call__(
        self, importance: Tensor | None, sample_ids: Tensor, step: int, num_views: int, num_patches: int
    ) -> Tensor | None:
        """Masks of ``num_views`` views of B samples, view-major.

        Args:
            importance: [num_views * B, N] for mode ``attention``, otherwise ignored.
            sample_ids: int64 [B], the samples' indices in the data set.
            step: optimiser step, counted from 0.
            num_views: V.
            num_patches: N.

        Returns:
            bool [V * B, N], or None for mode ``none``.
        """
        if self.mode == "none":
            return None
        draws = None
        if self.mode == "random" or self.p < 1:
            keys = [derive_key(self.seed, step, view) for view in range(num_views)]
            draws = torch.cat([uniform(key, sample_ids, num_patches) for key in keys])
        if self.mode == "random":
            assert draws is not None
            return random_mask(draws, self.p)
        assert importance is not None and importance.shape[1] == num_patches
        return attention_guided_mask(importance, self.num, self.p, draws)
