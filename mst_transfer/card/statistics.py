"""Intervals of figures and of paired differences, over seeds and images at once.

The design is crossed, all seeds are scored on the same images: ``docs/card_statistics.md`` has the formula, after
Cornfield and Tukey (1956) and Satterthwaite (1946).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from mst_transfer.card.measures import Measure
from mst_transfer.runs.counter_random import derive_key, uniform

ALPHA = 0.05  # intervals hold 95 %; level of the verdicts
NUM_DRAWS = 1000
_SEED = 1956


@dataclass(frozen=True)
class Interval:
    """A figure in per cent, the mean over seeds, with its 95 % interval."""

    value: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    num_images: int


@dataclass(frozen=True)
class Difference:
    """A paired difference a - b in points of per cent, the mean over seeds."""

    value: float
    low: float  # of the 95 % interval, not adjusted for other comparisons
    high: float
    p_value: float  # two-sided, likewise
    detectable: float  # the true difference that this design shows in 80 % of cases
    kind: str  # "seeds"; "two seeds", too few for a verdict; "one seed, images only", of which the interval is


def interval(measures: Sequence[Measure], groups: ArrayLike | None = None) -> Interval:
    """The figure of a checkpoint from one measure a seed; arguments and errors as in ``compare``."""
    index = _group_index(measures, groups)
    figures = _figures(measures, index)
    value, error, freedom = _estimate(figures, int(index.max()) + 1)
    half = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
    return Interval(value, max(value - half, 0), min(value + half, 100), tuple(figures[:, 0].tolist()), len(index))


def compare(
    a: Sequence[Measure], b: Sequence[Measure], groups: ArrayLike | None = None, num_comparisons: int = 1
) -> Difference:
    """The difference of two checkpoints.

    Args:
        a, b: one measure a seed, of the same seeds in the same order, all of the same images.
        groups: ``[n]``, images of one group (a drive) are drawn together; None: each image alone.
        num_comparisons: how many are judged together, for ``detectable``.

    Raises:
        ValueError: no seed, other seeds of b, measures of several kinds or sets of images, fewer than two groups.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} seeds and b {len(b)}: a paired comparison needs the same ones")
    index = _group_index([*a, *b], groups)
    estimate = _estimate(_figures(a, index) - _figures(b, index), int(index.max()) + 1)
    kind = ("one seed, images only", "two seeds", "seeds")[min(len(a), 3) - 1]
    return difference_of(*estimate, kind, num_comparisons)


def difference_of(value: float, error: float, freedom: float, kind: str, num_comparisons: int = 1) -> Difference:
    """The difference of an estimate with a standard error and its degrees of freedom, by Student's t."""
    half = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(value) / error)) if error else float(value == 0)
    shown = stdtrit(freedom, 1 - ALPHA / (2 * num_comparisons)) + stdtrit(freedom, 0.8)
    return Difference(value, value - half, value + half, p_value, float(shown) * error, kind)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the same order."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def sentence(difference: Difference, adjusted: float | None = None) -> str:
    """Says what a difference shows; a primary comparison has Holm's p-value ``adjusted``, an exploratory one None."""
    near_0 = min(abs(difference.low), abs(difference.high)) < 0.05 and difference.low * difference.high > 0
    is_open = adjusted is not None and adjusted > ALPHA
    digits = 2 if difference.high - difference.low < 0.2 or (near_0 and not is_open) else 1
    numbers = (difference.value, difference.low, difference.high, difference.detectable)
    value, low, high, shown = (_signed(number, digits) for number in numbers)
    if difference.kind != "seeds":
        return f"{value} ({low} … {high}): {difference.kind}, no verdict"
    if adjusted is None:
        return f"{value} ({low} … {high}): exploratory"
    if adjusted <= ALPHA:
        word, near, far = ("better", low, high) if difference.value > 0 else ("worse", high, low)
        return f"{word} by {value} ({near} … {far})".replace("+", "").replace("−", "")
    return f"no difference that these data can show ({low} … {high}; they would have shown {shown.lstrip('+')})"


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if float(text[1:]) else text[1:]


def _group_index(measures: Sequence[Measure], groups: ArrayLike | None) -> NDArray[np.int64]:
    """Number ``[n]`` of each image's group, from 0. Checks the measures."""
    seen = sorted({(measure.kind, measure.num_images, measure.digest) for measure in measures})
    if len(seen) != 1:
        raise ValueError(f"measures of (kind, number, digest of images) {seen}: one kind and one set are needed")
    num_images = measures[0].num_images
    groups = np.arange(num_images) if groups is None else np.asarray(groups)
    if groups.shape != (num_images,) or len(np.unique(groups)) < 2:
        raise ValueError(f"groups of the shape {groups.shape}: each of {num_images} images needs one, two must differ")
    return np.unique(groups, return_inverse=True)[1]


def _figures(measures: Sequence[Measure], index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Figures ``[S, 1 + R]``: of the images as they are, then under the draws."""
    return np.stack([_drawn_figures(measure, index.tobytes()) for measure in measures])


@lru_cache(maxsize=64)  # a checkpoint is compared with several
def _drawn_figures(measure: Measure, index: bytes) -> NDArray[np.float64]:
    numbers = np.frombuffer(index, dtype=np.int64)
    draws = _draws(int(numbers.max()) + 1)[:, numbers]
    return measure.figures(np.concatenate([np.ones_like(draws[:1]), draws]))


@lru_cache(maxsize=1)
def _draws(num_groups: int) -> NDArray[np.int64]:
    """How often ``[R, G]`` each of G groups is drawn in G draws with replacement: a function of G alone."""
    shares = uniform(derive_key(_SEED, num_groups), torch.arange(NUM_DRAWS), num_groups).double().numpy()
    places = (shares * num_groups).astype(np.int64) + num_groups * np.arange(NUM_DRAWS)[:, None]
    return np.bincount(places.ravel(), minlength=NUM_DRAWS * num_groups).reshape(NUM_DRAWS, -1)


def _estimate(figures: NDArray[np.float64], num_groups: int) -> tuple[float, float, float]:
    """Mean over seeds, its standard error and degrees of freedom from figures ``[S, 1 + R]``."""
    (seeds, _), others = figures.shape, num_groups - 1
    per_seed, drawn, mean = figures[:, 0], figures[:, 1:], figures[:, 1:].mean(axis=0)
    factor = num_groups / others  # that a bootstrap's variance lacks
    image_part = float(mean.var(ddof=1)) * factor
    if seeds == 1:
        return float(per_seed[0]), image_part**0.5, others
    seed_part = float(per_seed.var(ddof=1)) / seeds
    both = float((drawn - mean).var(axis=1, ddof=1).sum()) * factor / (seeds * (seeds - 1))
    total = max(seed_part + image_part - both, seed_part, image_part)
    spread = (seed_part**2 + both**2 / others) / (seeds - 1) + image_part**2 / others
    return float(per_seed.mean()), total**0.5, total**2 / spread if spread else others
