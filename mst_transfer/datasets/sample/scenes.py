"""One synthetic picture with exact labels: patterned objects on photographed ground.

Each of six classes of objects has an outline and a pattern of its own; the ground is one of four photographed surfaces.
Colour, light, scale, slant, blur and litter vary and mean nothing; objects stand upright, more or less. A *photo* shows
one or two objects of one class from near by on one ground, a *scene* objects of any class on two. Objects hide one
another; the masks hold what is visible.

Arrays: image ``[H, W, 3]`` uint8 RGB; semantic map ``[H, W]`` uint8 with ids into ``CLASSES``; masks
``[K, H, W]`` bool, one per object, disjoint.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from mst_transfer.datasets.sample.textures import PHOTOGRAPHS, Image, Pixels, draw_patch, draw_pattern


class Look(NamedTuple):
    """What tells a class of objects from others."""

    pattern: str
    corners: int  # of the outline, on an ellipse
    first: float  # angle of the first of them
    stretch: float  # height / width
    rough: float  # share by which the outline waves


_LOOKS = {
    "flag": Look("stripes", 4, np.pi / 4, 0.7, 0.0),
    "quilt": Look("checks", 4, 0.0, 0.8, 0.0),
    "beetle": Look("dots", 32, 0.0, 0.8, 0.0),
    "tent": Look("zigzag", 3, np.pi / 6, 1.0, 0.0),
    "net": Look("grid", 6, 0.0, 0.9, 0.0),
    "cow": Look("blotches", 32, 0.0, 0.8, 0.12),
}
STUFF_CLASSES: tuple[str, ...] = tuple(PHOTOGRAPHS)
OBJECT_CLASSES: tuple[str, ...] = tuple(_LOOKS)
CLASSES: tuple[str, ...] = STUFF_CLASSES + OBJECT_CLASSES
SPLITS: tuple[str, ...] = ("photos", "coco/train", "coco/val", "cityscapes/train", "cityscapes/val")

_SCENE_RADII, _PHOTO_RADII, _LITTER_RADII = (0.17, 0.3), (0.35, 0.55), (0.03, 0.09)  # shares of the side
_MAX_TURN = np.pi / 10  # from upright
_LITTER = Look("none", 5, 0.0, 1.0, 0.0)
_MIN_VISIBLE = 0.4  # share of an object


@dataclass(frozen=True)
class Scene:
    """A drawn scene."""

    image: Image  # [H, W, 3], RGB
    semantic: NDArray[np.uint8]  # [H, W], ids into CLASSES
    masks: NDArray[np.bool_]  # [K, H, W], the visible pixels of each object
    labels: tuple[int, ...]  # [K], ids into OBJECT_CLASSES


def scene_generator(seed: int, split: str, index: int) -> Generator:
    """The random numbers of one scene: they depend on (seed, split, index) and on nothing else."""
    return Generator(Philox(key=np.array([seed, (SPLITS.index(split) << 32) + index], dtype=np.uint64)))


def draw_scene(rng: Generator, size: int = 96, is_photo: bool = False) -> Scene:
    """Draws a square scene or photo of ``size`` pixels a side, at least 32."""
    semantic, canvas = _draw_ground(rng, size, 1 if is_photo else 2)
    for _ in range(int(rng.integers(4))):  # litter, which has no label
        alpha, _ = _draw_outline(rng, _LITTER, size, _LITTER_RADII)
        canvas += alpha[..., None] * (rng.uniform(40.0, 200.0, 3).astype(np.float32) - canvas)
    masks: list[NDArray[np.bool_]] = []
    areas: list[int] = []  # of the whole object, hidden or not
    labels: list[int] = []
    wanted, kind = int(rng.integers(*((1, 3) if is_photo else (2, 6)))), int(rng.integers(len(_LOOKS)))
    for _ in range(3 * wanted):
        if len(masks) == wanted:
            break
        label = kind if is_photo else int(rng.integers(len(_LOOKS)))
        look = _LOOKS[OBJECT_CLASSES[label]]
        alpha, plane = _draw_outline(rng, look, size, _PHOTO_RADII if is_photo else _SCENE_RADII)
        mask = alpha >= 0.5
        hides = any((other & ~mask).sum() < _MIN_VISIBLE * area for other, area in zip(masks, areas, strict=True))
        if mask.sum() < 0.015 * size**2 or hides:
            continue
        _paint_object(rng, canvas, alpha, look.pattern, plane)
        masks = [other & ~mask for other in masks] + [mask]
        areas.append(int(mask.sum()))
        labels.append(label)
    for mask, label in zip(masks, labels, strict=True):
        semantic[mask] = len(STUFF_CLASSES) + label
    stacked = np.stack(masks) if masks else np.zeros((0, size, size), dtype=bool)
    return Scene(_photograph(rng, canvas), semantic, stacked, tuple(labels))


def _draw_ground(rng: Generator, size: int, num_surfaces: int) -> tuple[NDArray[np.uint8], Pixels]:
    """One surface, or two with a straight border between them: semantic map and pixels."""
    first, second = rng.choice(len(STUFF_CLASSES), 2, replace=False)
    if num_surfaces == 1:
        surface = draw_patch(rng, STUFF_CLASSES[first], size, size, size / 96)
        return np.full((size, size), first, dtype=np.uint8), surface
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.35, 0.35) * size
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) - (size - 1) / 2
    side = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle)) + np.float32(offset)
    share = np.clip(side + 0.5, 0, 1)[..., None]
    one, other = (draw_patch(rng, STUFF_CLASSES[label], size, size, size / 96) for label in (first, second))
    return np.where(side > 0, first, second).astype(np.uint8), other + share * (one - other)


def _draw_outline(
    rng: Generator, look: Look, size: int, radii: tuple[float, float]
) -> tuple[Pixels, NDArray[np.float64]]:
    """Coverage ``[size, size]`` in [0, 1] of an outline at a random place, scale and slant, a little turned.

    Returns:
        Coverage, and the matrix [2, 3] that takes pixels (x, y, 1) to the object's own plane, its centre at 0.
    """
    radius = size * np.exp(rng.uniform(*np.log(radii)))
    angle = rng.uniform(-_MAX_TURN, _MAX_TURN)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1.0, rng.uniform(-0.25, 0.25)], [0.0, rng.uniform(0.75, 1.0)]])
    centre = rng.uniform(*((0.3, 0.7) if radii == _PHOTO_RADII else (0.05, 0.95)), 2) * size
    around = look.first + 2 * np.pi / look.corners * np.arange(look.corners)
    waves = [np.sin((k + 2) * around + start) for k, start in enumerate(rng.uniform(0, 2 * np.pi, 3))]
    reach = radius * (1 + look.rough * np.sum(waves, axis=0))
    points = np.stack([reach * np.cos(around), reach * look.stretch * np.sin(around)], axis=1) @ matrix.T + centre
    coverage = np.zeros((size, size), dtype=np.uint8)
    cv2.fillPoly(coverage, [np.rint(points * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    inverse = np.linalg.inv(matrix)
    return coverage.astype(np.float32) * np.float32(1 / 255), np.column_stack([inverse, -inverse @ centre])


def _paint_object(rng: Generator, canvas: Pixels, alpha: Pixels, pattern: str, plane: NDArray[np.float64]) -> None:
    """Lays a pattern, lit from one side, over the canvas ``[H, W, 3]`` where ``alpha`` ``[H, W]`` says."""
    rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    y, x = (axis.astype(np.float32) for axis in np.mgrid[window])
    across, along = (a * x + b * y + c for a, b, c in (plane * (96 / len(canvas))).astype(np.float32))
    light = 1 + np.float32(rng.uniform(-0.01, 0.01)) * across
    surface = draw_pattern(rng, pattern, across, along) * light[..., None]
    canvas[window] += alpha[window][..., None] * (surface - canvas[window])


def _photograph(rng: Generator, canvas: Pixels) -> Image:
    """Light falling off across the scene, exposure, white balance, a little blur and noise."""
    size = canvas.shape[0]
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    direction = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0.0, 0.7) * (columns * np.cos(direction) + rows * np.sin(direction))
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.85, 1.15, 3)
    pixels = canvas * (light[..., None] * gain).astype(np.float32)
    blur = rng.uniform(0.0, 1.0) * size / 96
    if blur > 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
    pixels += np.float32(rng.uniform(2.0, 8.0)) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)
