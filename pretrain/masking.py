"""Which patches the student does not get to see (MST, section 3.2).

A mask is a boolean tensor, True where a patch is hidden. The attention-guided mask hides only patches that the
teacher attends to *least*, so that the cross-entropy still sees what matters in the image.
"""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor

from mst_transfer.runs.counter_random import derive_key, uniform

MODES = ("attention", "random", "none", "attention_high", "attention_hint")
ATTMASK_MODES = ("attention_high", "attention_hint")
MODES_WITH_OPTION = {
    "num": ("attention",),
    "p": ("attention", "random"),
    "ratio": ATTMASK_MODES,
    "ratio_var": ATTMASK_MODES,
    "image_prob": ATTMASK_MODES,
    "show_max": ("attention_hint",),
}
_IMAGES, _HINTS, _RATIO, _SHOWN_RATIO = 1, 2, 3, 4  # streams of draws; those of the patches have none


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

    Args:
        draws: uniform numbers [B, N] in [0, 1).
        p: in [0, 1].
    """
    return draws < p


def attmask_high(importance: Tensor, ratio: float, image_prob: float, image_draws: Tensor) -> Tensor:
    """Hide the ``int(N * ratio)`` *most* attended patches of an image, with probability ``image_prob``.

    Kakogeorgiou et al., "What to Hide from Your Students: Attention-Guided Masked Image Modeling", ECCV 2022.

    Args:
        importance: [B, N].
        ratio: share of the patches.
        image_prob: probability that an image is masked at all.
        image_draws: uniform numbers [B, 1] in [0, 1).
    """
    return extreme_patches(importance, int(importance.shape[1] * ratio), highest=True) & (image_draws <= image_prob)


def reveal_hints(mask: Tensor, importance: Tensor, show_ratio: float, show_max: float, draws: Tensor) -> Tensor:
    """Show ``int(N * show_ratio)`` of the ``int(N * show_max)`` most attended patches again (AttMask's hints).

    Args:
        mask: bool [B, N].
        importance: [B, N].
        show_ratio: share of all patches to show.
        show_max: share of all patches to choose them from, at random without repetition.
        draws: uniform numbers [B, N] in [0, 1).
    """
    num_patches = importance.shape[1]
    num_top, num_shown = int(num_patches * show_max), int(num_patches * show_ratio)
    top = extreme_patches(importance, num_top, highest=True)
    shown = draws.masked_fill(~top, 2.0).argsort(dim=1)[:, : min(num_shown, num_top)]
    return mask & ~torch.zeros_like(mask).scatter_(1, shown, True)


class MaskGenerator:
    """Masks for the global views of a step.

    Args:
        mode: ``attention`` (MST: the least attended), ``random`` (Bernoulli over all patches), ``none`` (plain DINO),
            ``attention_high`` (AttMask-High: the most attended) or ``attention_hint`` (AttMask-Hint: of these some
            are shown).
        num: see :func:`attention_guided_mask`; 8 is our choice, the paper gives no value.
        p: probability; ``attention``: of a candidate, ``random``: of any patch.
        seed: with the step and the sample's index it determines every draw.
        ratio, ratio_var: of the AttMask modes: share of the patches to hide, drawn anew in each step from
            ratio ± ratio_var.
        image_prob: of the AttMask modes: probability that an image is masked at all.
        show_max: of ``attention_hint``: hints are chosen from this share of the patches, and are ``show_max * ratio``
            of all patches, with a ratio drawn for them alone, as in AttMask's code.
        views: the global views that are masked.

    Raises:
        ValueError: an option is out of range, or has been set although the mode does not use it; mode ``none`` takes
            no notice of any.
    """

    def __init__(
        self,
        mode: str = "attention",
        num: int = 8,
        p: float = 1.0,
        seed: int = 0,
        ratio: float = 0.3,
        ratio_var: float = 0.0,
        image_prob: float = 0.5,
        show_max: float = 0.1,
        views: Sequence[int] = (0, 1),
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"masking.mode = {mode!r} is not known; choose one of {', '.join(MODES)}")
        if num < 1 or int(num) != num:
            raise ValueError(f"masking.num = {num!r} must be a whole number >= 1: the lowest 1/num are candidates")
        if not 0 <= p <= 1:
            raise ValueError(f"masking.p = {p!r} is a probability: choose it in [0, 1]")
        if mode == "random" and p == 1:
            raise ValueError("masking: mode 'random' with p = 1 hides every patch; choose p < 1, e.g. p=0.125")
        for name, value in {"ratio": ratio, "image_prob": image_prob, "show_max": show_max}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"masking.{name} = {value!r} must lie in [0, 1]")
        if not 0 <= ratio_var <= min(ratio, 1 - ratio):
            raise ValueError(
                f"masking.ratio_var = {ratio_var!r}: ratio ± ratio_var = {ratio} ± {ratio_var} leaves [0, 1]"
            )
        if not views or not set(views) <= {0, 1}:
            raise ValueError(f"masking.views = {tuple(views)} must name global views: (0, 1), (0,) or (1,)")
        self.mode, self.num, self.p, self.seed = mode, int(num), float(p), seed
        self.ratio, self.ratio_var, self.image_prob, self.show_max = ratio, ratio_var, image_prob, show_max
        self.views = tuple(views)
        self._check_used()

    def _check_used(self) -> None:
        """Refuse what has been set without effect."""
        defaults = inspect.signature(MaskGenerator).parameters
        for name, modes in MODES_WITH_OPTION.items():
            value, default = getattr(self, name), defaults[name].default
            if self.mode not in (*modes, "none") and value != default:
                raise ValueError(
                    f"masking.{name} = {value!r} has no effect in mode {self.mode!r}, only in {' and '.join(modes)}: "
                    f"leave it at {default!r} or choose another mode"
                )

    def check_size(self, num_patches: int) -> None:
        """Refuse options that could never hide a patch of a view of N patches, or never show a hint.

        Raises:
            ValueError: says what to choose.
        """
        if self.mode == "attention" and self.num > num_patches:
            raise ValueError(
                f"masking.num = {self.num} hides nothing: a global view has {num_patches} patches; choose at most that"
            )
        largest = self.ratio + self.ratio_var
        if self.mode in ATTMASK_MODES and int(num_patches * largest) == 0:
            raise ValueError(
                f"masking.ratio = {self.ratio} hides nothing: a global view has {num_patches} patches; choose at least "
                f"{1 / num_patches:.3f}"
            )
        if self.mode == "attention_hint" and int(num_patches * self.show_max * largest) == 0:
            raise ValueError(
                f"masking.show_max = {self.show_max} shows nothing: of {num_patches} patches, show_max x ratio is less "
                "than one; choose a larger show_max or ratio, or mode 'attention_high'"
            )

    @property
    def needs_importance(self) -> bool:
        return self.mode.startswith("attention")

    def __call__(
        self, importance: Tensor | None, sample_ids: Tensor, step: int, num_views: int, num_patches: int
    ) -> Tensor | None:
        """Masks of ``num_views`` views of B samples, view-major.

        Args:
            importance: [num_views * B, N] for the modes that look at attention, otherwise ignored.
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
            mask = random_mask(self._draws(sample_ids, step, num_views, num_patches), self.p)
        else:
            assert importance is not None and importance.shape[1] == num_patches
            if self.mode == "attention":
                draws = self._draws(sample_ids, step, num_views, num_patches) if self.p < 1 else None
                mask = attention_guided_mask(importance, self.num, self.p, draws)
            else:
                mask = self._attmask(importance, sample_ids, step, num_views)
        for view in set(range(num_views)) - set(self.views):
            mask[view * len(sample_ids) : (view + 1) * len(sample_ids)] = False
        return mask

    def _draws(self, sample_ids: Tensor, step: int, num_views: int, num_draws: int, *stream: int) -> Tensor:
        """Uniform numbers [V * B, num_draws]."""
        keys = [derive_key(self.seed, step, view, *stream) for view in range(num_views)]
        return torch.cat([uniform(key, sample_ids, num_draws) for key in keys])

    def _attmask(self, importance: Tensor, sample_ids: Tensor, step: int, num_views: int) -> Tensor:
        num_patches = importance.shape[1]
        image_draws = self._draws(sample_ids, step, num_views, 1, _IMAGES)
        mask = attmask_high(importance, self._ratio(step, _RATIO), self.image_prob, image_draws)
        if self.mode == "attention_hint":
            draws = self._draws(sample_ids, step, num_views, num_patches, _HINTS)
            show_ratio = self.show_max * self._ratio(step, _SHOWN_RATIO)
            mask = reveal_hints(mask, importance, show_ratio, self.show_max, draws)
        return mask

    def _ratio(self, step: int, stream: int) -> float:
        """A ratio for the whole step, uniform over ratio ± ratio_var."""
        draw = derive_key(self.seed, step, stream) / 2**64
        return self.ratio + self.ratio_var * (2 * draw - 1)
