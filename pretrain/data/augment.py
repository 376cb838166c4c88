"""Multi-crop augmentation: DINO's recipe, drawn first and rendered after.

``draw_crops`` turns random numbers into ``CropPlan`` objects and touches no pixel;
``render_crops`` turns plans into crops and draws nothing. All numbers of a sample come from one block of
uniform draws keyed by (seed, epoch, sample index): they do not depend on workers, ranks or order, and an
option that is changed leaves the draws of the others as they were.

Recipe: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (DINO), section 3 and
appendix C; order and semantics of each operation are those of torchvision's transforms on PIL images.
"""

import math
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import permutations
from typing import Any, NamedTuple

import cv2
import numpy as np

from pretrain.data import image_ops
from mst_transfer.files.image_crops import Image, draw_box, resized_crop
from mst_transfer.runs.counter_random import sample_generator

# Columns of a crop's row of uniform draws; those before are its box's.
_FLIP, _JITTER, _ORDER, _FACTORS, _GRAY, _BLUR, _SIGMA, _SOLARIZE = (
    22, 23, 24, slice(25, 29), 29, 30, 31, 32,
)  # fmt: skip
NUM_DRAWS = 33

_JITTER_OPS = ("brightness", "contrast", "saturation", "hue")
_JITTER_ORDERS = tuple(permutations(range(4)))
_STREAM_CROPS = 1


@dataclass(frozen=True)
class MultiCropOptions:
    """Every number of the augmentation; the defaults are DINO's."""

    global_size: int = 224  # side of the two global crops in pixels
    local_size: int = 96  # of the local ones
    num_local_crops: int = 8  # N; 0 leaves the two global crops alone
    global_scale: tuple[float, float] = (0.4, 1.0)  # range of each one's share of the image area
    local_scale: tuple[float, float] = (0.05, 0.4)  # likewise
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # range of width / height of a crop, log-uniform
    flip_prob: float = 0.5  # of a horizontal flip
    jitter_prob: float = 0.8  # of the colour jitter of a crop
    brightness: float = 0.4  # a factor is drawn from [max(0, 1 - x), 1 + x]
    contrast: float = 0.4  # likewise
    saturation: float = 0.2  # likewise
    hue: float = 0.1  # a shift is drawn from [-hue, hue], in turns of the colour circle, at most 0.5
    grayscale_prob: float = 0.2
    global_blur_probs: tuple[float, float] = (1.0, 0.1)  # of the first and of the second global crop
    local_blur_prob: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # range of the standard deviation in pixels (PIL's ``radius``)
    global_solarize_probs: tuple[float, float] = (0.0, 0.2)  # of the first and of the second global crop
    local_solarize_prob: float = 0.0
    solarize_threshold: int = 128  # values from here on are inverted, 0 to 256

    @property
    def sample_bytes(self) -> int:
        """Of the uint8 crops of an image."""
        return 3 * (2 * self.global_size**2 + self.num_local_crops * self.local_size**2)

    def __post_init__(self) -> None:
        for name in ("global_size", "local_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "a number of pixels of at least 1")
        _require(self.num_local_crops >= 0, "num_local_crops", self.num_local_crops, "0 or more")
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            _require(0 < low <= high <= 1, name, (low, high), "0 < low <= high <= 1 (share of the area)")
        for name in ("ratio", "blur_sigma"):
            low, high = getattr(self, name)
            _require(0 < low <= high, name, (low, high), "0 < low <= high")
        probabilities = {f.name: getattr(self, f.name) for f in fields(self) if "prob" in f.name}
        for name, value in probabilities.items():
            values = value if isinstance(value, (tuple, list)) else (value,)
            _require(all(0 <= v <= 1 for v in values), name, value, "probabilities in [0, 1]")
        for name in ("global_blur_probs", "global_solarize_probs"):
            value = getattr(self, name)
            _require(len(value) == 2, name, value, "two numbers, one for each global crop")
        for name in ("brightness", "contrast", "saturation"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(0 <= self.hue <= 0.5, "hue", self.hue, "a number in [0, 0.5]")
        threshold = self.solarize_threshold
        _require(0 <= threshold <= 256, "solarize_threshold", threshold, "a grey level from 0 to 256")

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> "MultiCropOptions":
        """Builds the options, naming the nearest known option for an unknown one."""
        known = [f.name for f in fields(cls)]
        for name in kwargs:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known options: {', '.join(known)}."
                raise ValueError(f"Unknown augmentation option '{name}': {hint}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
        return cls(**values)


def _require(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ValueError(f"Augmentation option {name}={value!r} is not allowed: it must be {allowed}.")


class CropPlan(NamedTuple):
    """What is done to one crop, in this order: box, flip, jitter, grayscale, blur, solarize."""

    top: int  # of the box, in pixels
    left: int
    height: int
    width: int
    size: int  # side of the crop
    flip: bool  # mirror left and right
    jitter: tuple[tuple[str, float], ...]  # (operation, factor) in the order of application; empty without colour jitter
    grayscale: bool
    blur_sigma: float  # standard deviation in pixels; 0 without blur
    solarize_threshold: int  # 256 without solarisation


def draw_crops(
    options: MultiCropOptions, height: int, width: int, *, seed: int, epoch: int, index: int
) -> list[CropPlan]:
    """Plans for the two global crops and the N local ones of a sample, from (seed, epoch, index) alone."""
    num_crops = 2 + options.num_local_crops
    draws = sample_generator(seed, epoch, index, _STREAM_CROPS).random((num_crops, NUM_DRAWS)).tolist()
    return [_draw_crop(options, number, draws[number], height, width) for number in range(num_crops)]


def _draw_crop(options: MultiCropOptions, number: int, draws: list[float], height: int, width: int) -> CropPlan:
    """Plan of crop ``number`` (0 and 1 are global) from its row of uniform draws in [0, 1)."""
    if number < 2:
        size, scale = options.global_size, options.global_scale
        blur_prob, solarize_prob = options.global_blur_probs[number], options.global_solarize_probs[number]
    else:
        size, scale = options.local_size, options.local_scale
        blur_prob, solarize_prob = options.local_blur_prob, options.local_solarize_prob
    top, left, box_height, box_width = draw_box(draws, height, width, scale, options.ratio)
    return CropPlan(
        top=top,
        left=left,
        height=box_height,
        width=box_width,
        size=size,
        flip=draws[_FLIP] < options.flip_prob,
        jitter=_draw_jitter(options, draws) if draws[_JITTER] < options.jitter_prob else (),
        grayscale=draws[_GRAY] < options.grayscale_prob,
        blur_sigma=_between(draws[_SIGMA], *options.blur_sigma) if draws[_BLUR] < blur_prob else 0.0,
        solarize_threshold=options.solarize_threshold if draws[_SOLARIZE] < solarize_prob else 256,
    )


def _draw_jitter(options: MultiCropOptions, draws: list[float]) -> tuple[tuple[str, float], ...]:
    """The four operations in random order with their factors; an operation of strength 0 is left out."""
    steps = []
    for op in _JITTER_ORDERS[int(draws[_ORDER] * len(_JITTER_ORDERS))]:
        name = _JITTER_OPS[op]
        strength = getattr(options, name)
        low, high = (-strength, strength) if name == "hue" else (max(0.0, 1 - strength), 1 + strength)
        if strength > 0:
            steps.append((name, _between(draws[_FACTORS][op], low, high)))
    return tuple(steps)


def _between(draw: float, low: float, high: float) -> float:
    return low + draw * (high - low)


def render_crop(image: Image, plan: CropPlan) -> Image:
    """Carries out one plan: uint8 RGB [H, W, 3] → [size, size, 3], or [size, size] if the plan turns it to grey."""
    crop = resized_crop(image, plan.top, plan.left, plan.height, plan.width, plan.size)
    if plan.flip:
        crop = cv2.flip(crop, 1)
    for name, factor in plan.jitter:
        crop = getattr(image_ops, f"adjust_{name}")(crop, factor)
    if plan.grayscale:
        crop = image_ops.to_grayscale(crop)
    if plan.blur_sigma > 0:
        crop = image_ops.gaussian_blur(crop, plan.blur_sigma)
    if plan.solarize_threshold < 256:
        crop = image_ops.solarize(crop, plan.solarize_threshold)
    return crop


def render_crops(image: Image, plans: list[CropPlan]) -> Image:
    """Carries out plans, at least one, all of the same ``size``.

    uint8 RGB [H, W, 3] → [len(plans), 3, size, size], contiguous.
    """
    size = plans[0].size
    crops = np.empty((len(plans), 3, size, size), dtype=np.uint8)
    for planes, plan in zip(crops, plans, strict=True):
        crop = render_crop(image, plan)
        if crop.ndim == 2:
            planes[:] = crop
        else:
            cv2.split(crop, [planes[0], planes[1], planes[2]])
    return crops
