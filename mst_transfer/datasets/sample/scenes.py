"""One synthetic scene of photographic textures, with exact labels.

A scene has stuff (sky, a wall before it, and ground of grass and gravel) and objects of five classes, told
apart by their outline and by their texture. Objects hide one another; the masks hold what is visible.

Arrays: image ``[H, W, 3]`` uint8 RGB; semantic map ``[H, W]`` uint8 with ids into :data:`CLASSES`; masks
``[K, H, W]`` bool, one per object, disjoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from mst_transfer.datasets.sample.textures import Image, draw_patch

STUFF_CLASSES: tuple[str, ...] = ("sky", "wall", "grass", "gravel")
OBJECT_CLASSES: tuple[str, ...] = ("disc", "triangle", "box", "star", "ring")
CLASSES: tuple[str, ...] = STUFF_CLASSES + OBJECT_CLASSES
SPLITS: tuple[str, ...] = ("photos", "coco/train", "coco/val", "cityscapes/train", "cityscapes/val")

_STUFF_TEXTURES = {"sky": ("night sky", "moon"), "wall": ("brick",), "grass": ("grass",), "gravel": ("gravel",)}
_OBJECT_TEXTURES = {
    "disc": ("fur", "coins"),
    "triangle": ("print", "handwriting"),
    "box": ("wood", "engine"),
    "star": ("vessels", "galaxies"),
    "ring": ("cells", "suit"),
}
_SUPERSAMPLING = 4
_MIN_VISIBLE_PIXELS = 60  # in a scene of 128 x 128 pixels
_MIN_VISIBLE_SHARE = 0.35


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


def draw_scene(rng: Generator, size: int = 128) -> Scene:
    """Draws a square scene of ``size`` pixels a side, at least 32."""
    semantic = _stuff_layout(rng, size)
    canvas = _paint_stuff(rng, semantic)
    masks: list[NDArray[np.bool_]] = []
    areas: list[int] = []  # of the whole object, hidden or not
    labels: list[int] = []
    wanted = int(rng.integers(2, 7))
    for _ in range(3 * wanted):
        if len(masks) == wanted:
            break
        label = int(rng.integers(len(OBJECT_CLASSES)))
        alpha = _object_alpha(rng, label, size)
        mask = alpha >= 0.5
        texture = _OBJECT_TEXTURES[OBJECT_CLASSES[label]][int(rng.integers(2))]
        if not _leaves_enough(mask, masks, areas, size):
            continue
        canvas = _paint_object(rng, canvas, alpha, texture)
        masks = [other & ~mask for other in masks] + [mask]
        areas.append(int(mask.sum()))
        labels.append(label)
    for mask, label in zip(masks, labels, strict=True):
        semantic[mask] = len(STUFF_CLASSES) + label
    stacked = np.stack(masks) if masks else np.zeros((0, size, size), dtype=bool)
    return Scene(_photograph(rng, canvas), semantic, stacked, tuple(labels))


def _stuff_layout(rng: Generator, size: int) -> NDArray[np.uint8]:
    """Semantic map of the background: sky, a wall on the horizon, ground with a second ground through it."""
    sky, wall, grass, gravel = range(len(STUFF_CLASSES))
    horizon = rng.uniform(0.3, 0.6)
    base, path = (grass, gravel) if rng.random() < 0.5 else (gravel, grass)
    far, wide = 4.0, 3.0  # polygons reach beyond the image, which may be tilted
    regions: list[tuple[int, list[tuple[float, float]]]] = [
        (base, [(-far, horizon), (far, horizon), (far, far), (-far, far)])
    ]
    if rng.random() < 0.85:
        left, right = rng.uniform(0.1, 1.1), rng.uniform(-0.1, 0.6)
        vanish = rng.uniform(0.1, 0.9)
        half = rng.uniform(0.02, 0.2)
        near = [(wide - right, 1.6), (-left, 1.6)]
        regions.append((path, [(vanish - half, horizon), (vanish + half, horizon), *near]))
    if rng.random() < 0.85:
        start, width, height = rng.uniform(-0.3, 0.5), rng.uniform(0.5, 1.1), rng.uniform(0.15, 0.5)
        step, step_height = rng.uniform(0.2, 0.8) * width, height * rng.uniform(0.4, 1.3)
        foot = horizon + 0.01
        outline = [(start, foot), (start, horizon - height), (start + step, horizon - height)]
        top = horizon - step_height
        outline += [(start + step, top), (start + width, top), (start + width, foot)]
        regions.append((wall, outline))
    tilt = rng.uniform(-0.12, 0.12)
    rotation = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    layout = np.full((size, size), sky, dtype=np.uint8)
    for label, outline in regions:
        points = (np.array(outline) - 0.5) @ rotation.T + 0.5
        cv2.fillPoly(layout, [np.rint(points * size).astype(np.int32)], label)
    return layout


def _paint_stuff(rng: Generator, semantic: NDArray[np.uint8]) -> Image:
    """Fill every region with its texture, borders softened by one pixel."""
    height, width = semantic.shape
    unit = height / 128
    canvas = np.zeros((height, width, 3), dtype=np.float32)
    for label, name in enumerate(STUFF_CLASSES):
        textures = _STUFF_TEXTURES[name]
        texture = textures[int(rng.integers(len(textures)))]
        patch = draw_patch(rng, texture, height, width, unit)
        share = cv2.GaussianBlur((semantic == label).astype(np.float32), (0, 0), 0.5)
        canvas += patch * share[..., None]
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _outline(rng: Generator, label: int) -> list[NDArray[np.float64]]:
    """Closed outlines of an object of radius 1 around the origin; a second outline is a hole."""
    name = OBJECT_CLASSES[label]
    circle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ring = np.stack([np.cos(circle), np.sin(circle)], axis=1)
    if name == "disc":
        return [ring]
    if name == "ring":
        return [ring, ring * rng.uniform(0.4, 0.55)]
    if name == "triangle":
        corners = np.deg2rad([-90, 30, 150]) + rng.uniform(-0.15, 0.15, 3)
        return [1.1 * np.stack([np.cos(corners), np.sin(corners)], axis=1)]
    if name == "box":
        half = np.array([0.85, rng.uniform(0.55, 0.85)])
        return [half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])]
    points = np.arange(10) * np.pi / 5  # star
    radius = np.where(np.arange(10) % 2 == 0, 1.15, rng.uniform(0.45, 0.58))
    return [radius[:, None] * np.stack([np.sin(points), -np.cos(points)], axis=1)]


def _object_alpha(rng: Generator, label: int, size: int) -> NDArray[np.float32]:
    """Coverage ``[size, size]`` in [0, 1] of one object at a random place, scale, rotation and slant."""
    radius = size * np.exp(rng.uniform(np.log(0.09), np.log(0.24)))
    angle = rng.uniform(-np.pi, np.pi) if OBJECT_CLASSES[label] != "triangle" else rng.uniform(-0.6, 0.6)
    squeeze = rng.uniform(0.75, 1.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    lean = np.array([[1.0, rng.uniform(-0.2, 0.2)], [0.0, squeeze]])
    centre = rng.uniform(0.02, 0.98, 2) * size
    fine = np.zeros((size * _SUPERSAMPLING, size * _SUPERSAMPLING), dtype=np.uint8)
    outlines = [
        np.rint(((points @ turn.T @ lean.T) * radius + centre) * _SUPERSAMPLING).astype(np.int32)
        for points in _outline(rng, label)
    ]
    cv2.fillPoly(fine, outlines, 255)  # even-odd: an inner outline is a hole
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _leaves_enough(mask: NDArray[np.bool_], masks: list[NDArray[np.bool_]], areas: list[int], size: int) -> bool:
    """Whether the new object and all objects that it would hide in part stay recognisable."""
    least = _MIN_VISIBLE_PIXELS * (size / 128) ** 2
    if mask.sum() < least:
        return False
    return all(
        (other & ~mask).sum() >= max(least, _MIN_VISIBLE_SHARE * area) for other, area in zip(masks, areas, strict=True)
    )


def _paint_object(rng: Generator, canvas: Image, alpha: NDArray[np.float32], texture: str) -> Image:
    """Lay the object over the canvas: soft shadow beside it, its texture, shading across it."""
    size = canvas.shape[0]
    unit = size / 128
    offset = rng.uniform(-3.0, 3.0, 2) * unit
    shift = np.array([[1.0, 0.0, offset[0]], [0.0, 1.0, abs(offset[1]) + unit]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, shift, (size, size)), (0, 0), 2.0 * unit)
    ground = canvas.astype(np.float32) * (1 - rng.uniform(0.2, 0.5) * shadow[..., None])
    covered = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    window = tuple(slice(int(along[0]), int(along[-1]) + 1) for along in covered)
    height, width = alpha[window].shape
    direction = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = columns * np.cos(direction) + rows * np.sin(direction)
    shading = 1 + rng.uniform(0.0, 0.5) * ((slope - slope.mean()) / max(float(np.ptp(slope)), 1.0))
    patch = draw_patch(rng, texture, height, width, unit).astype(np.float32) * shading[..., None]
    share = alpha[window][..., None]
    ground[window] = ground[window] * (1 - share) + patch * share
    return np.clip(ground, 0, 255).astype(np.uint8)


def _photograph(rng: Generator, canvas: Image) -> Image:
    """Light falling off across the scene, exposure, white balance, a little blur and noise."""
    size = canvas.shape[0]
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    direction = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0.0, 0.5) * (columns * np.cos(direction) + rows * np.sin(direction))
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, 3)
    pixels = canvas.astype(np.float32) * light[..., None] * gain
    blur = rng.uniform(0.0, 0.7)
    if blur > 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
    pixels += rng.normal(0, rng.uniform(2.0, 6.0), pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)
