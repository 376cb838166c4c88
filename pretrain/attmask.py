"""AttMask's masks, for ablations: the *most* attended patches are hidden, of which hints may be shown again.

Kakogeorgiou et al., "What to Hide from Your Students: Attention-Guided Masked Image Modeling", ECCV 2022.

Legend: B images, V views, N patches or cells of a view.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mst_transfer.runs.counter_random import derive_key
from pretrain.masking import MODES, MaskGenerator, extreme_patches

ATTMASK_MODES = ("attention_high", "attention_hint")
_ATTMASK = {"ratio": 0.3, "ratio_var": 0.0, "image_prob": 0.5}
# Mode → the options that it takes, and their defaults
OPTIONS: dict[str, dict[str, float]] = {
    "attention": {"num": 8, "p": 1.0},
    "random": {"p": 1.0},
    "attention_high": _ATTMASK,
    "attention_hint": {**_ATTMASK, "show_max": 0.1},
}
_IMAGES, _HINTS, _RATIO, _SHOWN_RATIO = 1, 2, 3, 4  # streams of draws; those of the patches have none


def attmask_high(importance: Tensor, ratio: float, image_prob: float, image_draws: Tensor) -> Tensor:
    """Hide the ``int(N * ratio)`` *most* attended patches of an image, with probability ``image_prob``.

    Importance [B, N] and uniform numbers [B, 1] in [0, 1) → bool [B, N].
    """
    return extreme_patches(importance, int(importance.shape[1] * ratio), highest=True) & (image_draws <= image_prob)


def reveal_hints(mask: Tensor, importance: Tensor, show_ratio: float, show_max: float, draws: Tensor) -> Tensor:
    """Show ``int(N * show_ratio)`` of the ``int(N * show_max)`` most attended patches again (AttMask's hints).

    They are chosen at random without repetition. Mask, importance and uniform numbers in [0, 1) are [B, N].
    """
    num_patches = importance.shape[1]
    num_top, num_shown = int(num_patches * show_max), int(num_patches * show_ratio)
    top = extreme_patches(importance, num_top, highest=True)
    shown = draws.masked_fill(~top, 2.0).argsort(dim=1)[:, : min(num_shown, num_top)]
    return mask & ~torch.zeros_like(mask).scatter_(1, shown, True)


class AttMaskGenerator(MaskGenerator):
    """AttMask's masks for the global views of a step.

    Args:
        mode: ``attention_high`` (AttMask-High: the most attended) or ``attention_hint`` (AttMask-Hint: of these some
            are shown).
        ratio, ratio_var: share of the patches to hide, drawn anew in each step from ratio ± ratio_var.
        image_prob: probability that an image is masked at all.
        show_max: of ``attention_hint``: hints are chosen from this share of the patches, and are ``show_max * ratio``
            of all patches, with a ratio drawn for them alone, as in AttMask's code.
        seed, views: see ``MaskGenerator``.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        mode: str,
        ratio: float = 0.3,
        ratio_var: float = 0.0,
        image_prob: float = 0.5,
        show_max: float = 0.1,
        seed: int = 0,
        views: Sequence[int] = (0, 1),
    ) -> None:
        super().__init__(mode, seed=seed, views=views)
        for name, value in {"ratio": ratio, "image_prob": image_prob, "show_max": show_max}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"masking.{name} = {value!r} must lie in [0, 1]")
        if not 0 <= ratio_var <= min(ratio, 1 - ratio):
            raise ValueError(
                f"masking.ratio_var = {ratio_var!r}: ratio ± ratio_var = {ratio} ± {ratio_var} leaves [0, 1]"
            )
        self.ratio, self.ratio_var, self.image_prob, self.show_max = ratio, ratio_var, image_prob, show_max

    def check_size(self, num_patches: int) -> None:
        """Refuses options that could never hide a patch of a view of N patches, or never show a hint.

        Raises:
            ValueError: says what to choose.
        """
        largest = self.ratio + self.ratio_var
        if int(num_patches * largest) == 0:
            raise ValueError(
                f"masking.ratio = {self.ratio} hides nothing: a global view has {num_patches} patches; choose at least "
                f"{1 / num_patches:.3f}"
            )
        if self.mode == "attention_hint" and int(num_patches * self.show_max * largest) == 0:
            raise ValueError(
                f"masking.show_max = {self.show_max} shows nothing: of {num_patches} patches, show_max x ratio is less "
                "than one; choose a larger show_max or ratio, or mode 'attention_high'"
            )

    def by_importance(self, importance: Tensor, sample_ids: Tensor, step: int, num_views: int) -> Tensor:
        """Masks bool [V * B, N]."""
        image_draws = self.draws(sample_ids, step, num_views, 1, _IMAGES)
        mask = attmask_high(importance, self._ratio(step, _RATIO), self.image_prob, image_draws)
        if self.mode == "attention_hint":
            draws = self.draws(sample_ids, step, num_views, importance.shape[1], _HINTS)
            show_ratio = self.show_max * self._ratio(step, _SHOWN_RATIO)
            mask = reveal_hints(mask, importance, show_ratio, self.show_max, draws)
        return mask

    def _ratio(self, step: int, stream: int) -> float:
        """A ratio for the whole step, uniform over ratio ± ratio_var."""
        draw = derive_key(self.seed, step, stream) / 2**64
        return self.ratio + self.ratio_var * (2 * draw - 1)


def build_mask_generator(mode: str = "attention", **options: Any) -> MaskGenerator:
    """The masks of a mode, MST's or AttMask's, from the options of all modes together.

    Args:
        mode: of ``MaskGenerator`` or ``AttMaskGenerator``.
        **options: arguments of both. What the mode does not use must have its default; mode ``none`` takes no notice
            of any.

    Raises:
        ValueError: ``mode`` is not known, an option is out of range, or has been set without effect.
    """
    if mode not in (*MODES, *ATTMASK_MODES):
        raise ValueError(f"masking.mode = {mode!r} is not known; choose one of {', '.join((*MODES, *ATTMASK_MODES))}")
    used = OPTIONS.get(mode, {})
    defaults = {name: default for those in OPTIONS.values() for name, default in those.items()}
    for name, default in defaults.items():
        if mode != "none" and name not in used and options.get(name, default) != default:
            users = " and ".join(user for user, those in OPTIONS.items() if name in those)
            raise ValueError(
                f"masking.{name} = {options[name]!r} has no effect in mode {mode!r}, only in {users}: leave it at "
                f"{default!r} or choose another mode"
            )
    kind = AttMaskGenerator if mode in ATTMASK_MODES else MaskGenerator
    taken = inspect.signature(kind).parameters
    return kind(mode, **{name: value for name, value in options.items() if name in taken or name not in defaults})
