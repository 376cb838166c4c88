"""The photometric part of crop plans as rows of numbers, for those who carry it out on a whole batch at once.

A row has ``NUM_COLUMNS`` numbers and then the taps of the blur, from the centre outwards. Rows of one kind of view are
equally long whatever is drawn; what a plan leaves out has the numbers that change nothing.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pretrain.data.augment import CropPlan, MultiCropOptions
from pretrain.data.image_ops import box_blur_kernel

# Three blends before the turn of the hue and three after it hold every order of the four operations of the jitter. A
# blend is the shares of the image, of its grey version and of its mean grey: (1, 0, 0) changes nothing.
BLENDS_BEFORE, BLENDS_AFTER = 3, 3
_NUM_BLENDS = BLENDS_BEFORE + BLENDS_AFTER
BLENDS = slice(0, 3 * _NUM_BLENDS)
HUE, GRAYSCALE, SOLARIZE = range(3 * _NUM_BLENDS, 3 * _NUM_BLENDS + 3)
NUM_COLUMNS = 3 * _NUM_BLENDS + 3
NO_HUE, NO_SOLARIZE = -1, 256

_IDENTITY = (1.0, 0.0, 0.0)


def without_photometry(plan: CropPlan) -> CropPlan:
    """Box and flip of a plan alone."""
    return plan._replace(jitter=(), grayscale=False, blur_sigma=0.0, solarize_threshold=NO_SOLARIZE)


def blur_radius(options: MultiCropOptions) -> int:
    """The largest number of taps beside the centre of any blur that the options allow."""
    if max(*options.global_blur_probs, options.local_blur_prob) == 0:
        return 0
    return len(box_blur_kernel(round(options.blur_sigma[1], 2))) // 2


def as_rows(plans: Sequence[CropPlan], radius: int) -> NDArray[np.float32]:
    """A row of numbers for each plan.

    Args:
        plans: of V views.
        radius: from :func:`blur_radius` of the options that the plans were drawn with.

    Returns:
        [V, NUM_COLUMNS + radius + 1]: shares of the blends, shift of the hue in 256ths of the circle (``NO_HUE`` where
        there is none), 1 for grey, the threshold of the solarisation (``NO_SOLARIZE`` where there is none), taps.
    """
    rows = []
    for plan in plans:
        blends, hue = _jitter(plan)
        taps = _taps(round(plan.blur_sigma, 2), radius) if plan.blur_sigma > 0 else (1.0,) + radius * (0.0,)
        rows.append((*blends, hue, plan.grayscale, plan.solarize_threshold, *taps))
    return np.array(rows, dtype=np.float32).reshape(len(plans), NUM_COLUMNS + radius + 1)


@lru_cache(maxsize=1024)
def _taps(sigma: float, radius: int) -> tuple[float, ...]:
    """One half of a blur's kernel from the centre on, filled up with zeros to ``radius + 1`` numbers."""
    taps = box_blur_kernel(sigma)
    half = taps[len(taps) // 2 :].tolist()
    return (*half, *[0.0] * (radius + 1 - len(half)))


def _jitter(plan: CropPlan) -> tuple[list[float], int]:
    """Shares of all blends one after the other, and the shift of the hue."""
    before: list[tuple[float, ...]] = []
    after: list[tuple[float, ...]] = []
    blends, hue = before, NO_HUE
    for name, factor in plan.jitter:
        if name == "hue":
            blends, hue = after, int(factor * 255) % 256
        elif name == "brightness":
            blends.append((factor, 0.0, 0.0))
        elif name == "saturation":
            blends.append((factor, 1 - factor, 0.0))
        else:
            assert name == "contrast", name
            blends.append((factor, 0.0, 1 - factor))
    before += [_IDENTITY] * (BLENDS_BEFORE - len(before))
    after += [_IDENTITY] * (BLENDS_AFTER - len(after))
    return [share for blend in before + after for share in blend], hue
