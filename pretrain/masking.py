"""Chooses the patches that the student does not get to see (MST, section 3.2).

A mask is a boolean tensor, True where a patch is hidden. The attention-guided mask hides only patches that the
teacher attends to *least*, so that the cross-entropy still sees what matters in the image.

Legend: B images, V views, N patches or cells of a view.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mst_transfer.runs.counter_random import derive_key, uniform

MODES = ("attention", "random", "none")


def extreme_patches(importance: Tensor, count: int, highest: bool) -> Tensor:
    """bool [B, N], True at the ``count`` least, or most, attended patches of each row of ``importance`` [B, N]."""
    chosen = importance.argsort(dim=1, descending=highest, stable=True)[:, :count]
    return torch.zeros_like(importance, dtype=torch.bool).scatter_(1, chosen, True)


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
    mask = extreme_patches(importance, importance.shape[1] // num, highest=False)
    if p >= 1:
        return mask
    if draws is None:
        raise ValueError(f"attention_guided_mask: p = {p} needs draws [B, N], got None")
    return mask & (draws < p)


def random_mask(draws: Tensor, p: float) -> Tensor:
    """Hide every patch with probability ``p``, whatever it shows: the paper's ablation.

    Uniform numbers [B, N] in [0, 1) → bool [B, N].
    """
    return draws < p


class MaskGenerator:
    """Masks for the global views of a step.

    Args:
        mode: ``attention`` (MST: the least attended), ``random`` (Bernoulli over all patches) or ``none`` (plain DINO).
        num: see ``attention_guided_mask``; 8 is our choice, the paper gives no value.
        p: probability; ``attention``: of a candidate, ``random``: of any patch.
        seed: with the step and the sample's index it determines every draw.
        views: the global views that are masked.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self, mode: str = "attention", num: int = 8, p: float = 1.0, seed: int = 0, views: Sequence[int] = (0, 1)
    ) -> None:
        if num < 1 or int(num) != num:
            raise ValueError(f"masking.num = {num!r} must be a whole number >= 1: the lowest 1/num are candidates")
        if not 0 <= p <= 1:
            raise ValueError(f"masking.p = {p!r} is a probability: choose it in [0, 1]")
        if mode == "random" and p == 1:
            raise ValueError("masking: mode 'random' with p = 1 hides every patch; choose p < 1, e.g. p=0.125")
        if not views or not set(views) <= {0, 1}:
            raise ValueError(f"masking.views = {tuple(views)} must name global views: (0, 1), (0,) or (1,)")
        self.mode, self.num, self.p, self.seed, self.views = mode, int(num), float(p), seed, tuple(views)

    @property
    def needs_importance(self) -> bool:
        return self.mode.startswith("attention")

    def check_size(self, num_patches: int) -> None:
        """Refuses options that could never hide a patch of a view of N patches.

        Raises:
            ValueError: says what to choose.
        """
        if self.mode == "attention" and self.num > num_patches:
            raise ValueError(
                f"masking.num = {self.num} hides nothing: a global view has {num_patches} patches; choose at most that"
            )

    def __call__(
        self, importance: Tensor | None, sample_ids: Tensor, step: int, num_views: int, num_patches: int
    ) -> Tensor | None:
        """Masks of ``num_views`` views of B samples, view-major.

        Args:
            importance: [V * B, N] for the modes that look at attention, otherwise ignored.
            sample_ids: int64 [B], the samples' indices in the data set.
            step: optimiser step, counted from 0.
            num_views: V.
            num_patches: N.

        Returns:
            bool [V * B, N], or None for mode ``none``.
        """
        if self.mode == "none":
            return None
        if self.mode == "random":
            mask = random_mask(self.draws(sample_ids, step, num_views, num_patches), self.p)
        else:
            assert importance is not None and importance.shape[1] == num_patches
            mask = self.by_importance(importance, sample_ids, step, num_views)
        for view in set(range(num_views)) - set(self.views):
            mask[view * len(sample_ids) : (view + 1) * len(sample_ids)] = False
        return mask

    def by_importance(self, importance: Tensor, sample_ids: Tensor, step: int, num_views: int) -> Tensor:
        """Masks bool [V * B, N] of the modes that look at attention."""
        draws = self.draws(sample_ids, step, num_views, importance.shape[1]) if self.p < 1 else None
        return attention_guided_mask(importance, self.num, self.p, draws)

    def draws(self, sample_ids: Tensor, step: int, num_views: int, num_draws: int, *stream: int) -> Tensor:
        """Uniform numbers [V * B, num_draws]."""
        keys = [derive_key(self.seed, step, view, *stream) for view in range(num_views)]
        return torch.cat([uniform(key, sample_ids, num_draws) for key in keys])
