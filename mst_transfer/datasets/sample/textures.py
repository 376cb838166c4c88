"""Patches of real photographs, the material of the sample scenes.

Every photograph is a file inside the scikit-image wheel (``skimage/data``), so nothing is downloaded. A
texture is a rectangle of one photograph that looks alike throughout (fur, bricks, writing, ...);
:func:`draw_patch` cuts a random rotated and scaled window out of it, mirrored at the borders, and changes its
colours so that the structure and not the colour tells textures apart.

Arrays: images ``[H, W, 3]`` uint8, RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as PillowImage

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Texture:
    """One homogeneous rectangle of a photograph."""

    photo: str  # file name inside skimage/data
    box: tuple[int, int, int, int]  # (x0, y0, x1, y1) in pixels of the photograph
    zoom: tuple[float, float]  # photograph pixels per drawn pixel, in scenes of 128 pixels (larger: finer structure)


TEXTURES: dict[str, Texture] = {
    "night sky": Texture("rocket.jpg", (215, 0, 425, 120), (0.8, 1.6)),
    "moon": Texture("moon.png", (0, 0, 512, 512), (1.2, 2.4)),
    "brick": Texture("brick.png", (0, 0, 512, 512), (2.2, 3.8)),
    "grass": Texture("grass.png", (0, 0, 512, 512), (1.2, 2.2)),
    "gravel": Texture("gravel.png", (0, 0, 512, 512), (1.4, 2.6)),
    "fur": Texture("chelsea.png", (120, 0, 330, 70), (1.2, 2.2)),
    "coins": Texture("coins.png", (10, 10, 374, 293), (2.0, 3.4)),
    "print": Texture("page.png", (0, 40, 380, 150), (1.3, 2.2)),
    "handwriting": Texture("text.png", (20, 5, 430, 165), (1.8, 3.0)),
    "wood": Texture("coffee.png", (0, 0, 130, 120), (1.0, 1.8)),
    "engine": Texture("motorcycle_left.png", (190, 190, 480, 400), (1.8, 3.0)),
    "vessels": Texture("retina.jpg", (350, 300, 1050, 1100), (4.0, 7.0)),
    "galaxies": Texture("hubble_deep_field.jpg", (0, 0, 1000, 872), (2.4, 4.4)),
    "cells": Texture("ihc.png", (0, 0, 512, 512), (1.8, 3.2)),
    "suit": Texture("astronaut.png", (20, 230, 270, 512), (1.6, 2.8)),
}


@cache
def load_texture(name: str) -> Image:
    """The rectangle of texture ``name``, ``[H, W, 3]`` uint8, RGB; shared between callers: do not write into it."""
    import skimage

    texture = TEXTURES[name]
    path = Path(skimage.__file__).parent / "data" / texture.photo
    with PillowImage.open(path) as opened:  # OpenCV would warn about the colour profile of one of the files
        return np.asarray(opened.convert("RGB").crop(texture.box), dtype=np.uint8)


def draw_patch(rng: Generator, name: str, height: int, width: int, unit: float = 1.0) -> Image:
    """Cuts a random window ``[height, width, 3]`` of a texture: rotated, scaled, mirrored at the borders, recoloured.

    ``unit``: scene pixels per pixel of a 128-pixel scene, so that a larger scene shows the same things.
    """
    zoom = rng.uniform(*TEXTURES[name].zoom) / unit
    halvings = max(int(np.floor(np.log2(zoom) + 0.25)), 0)  # skipping pixels would turn structure into noise
    source = _halved(name, halvings)
    zoom /= 2**halvings
    angle = rng.uniform(0, 2 * np.pi)
    centre = rng.uniform((0, 0), source.shape[1::-1])
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    # Patch pixel (x, y) shows the photograph at  centre + zoom * R(angle) * (x - width / 2, y - height / 2).
    matrix = np.array([[cosine, -sine, centre[0]], [sine, cosine, centre[1]]])
    matrix[:, 2] -= matrix[:, :2] @ (width / 2, height / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(source, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return _change_colours(rng, np.asarray(patch, dtype=np.uint8))


@cache
def _halved(name: str, times: int) -> Image:
    """Texture ``name`` averaged to half its sides, ``times`` times."""
    source = load_texture(name)
    height, width = source.shape[0] >> times, source.shape[1] >> times
    return np.asarray(cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _change_colours(rng: Generator, patch: Image) -> Image:
    """Even out brightness and contrast, then tint: part of the photograph's own hue, part of a random one."""
    pixels = patch.astype(np.float32)
    grey = pixels.mean(axis=2, keepdims=True)
    own = rng.uniform(0.0, 0.6)
    tint = rng.uniform(0.7, 1.0, 3).astype(np.float32)
    coloured = own * pixels + (1 - own) * grey * (tint / tint.mean())
    spread = max(float(coloured.std()), 6.0)
    contrast = rng.uniform(28.0, 46.0) / spread
    level = rng.uniform(85.0, 165.0)
    result = (coloured - coloured.mean()) * min(contrast, 3.0) + level * (tint / tint.mean())
    return np.clip(result, 0, 255).astype(np.uint8)
