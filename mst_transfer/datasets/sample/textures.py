"""What the sample scenes are made of: patches of real photographs for stuff, printed patterns for objects.

Every photograph is a file inside the scikit-image wheel (``skimage/data``), so nothing is downloaded.
``draw_patch`` cuts a random turned and scaled window out of one, mirrored at the borders, and changes its
colours; ``draw_pattern`` evaluates a pattern in two random colours. Structure, not colour, tells classes apart.

Arrays: photographs ``[H, W, 3]`` uint8, patches float32 in 0 to 255, RGB. Lengths are pixels of a 96-pixel image:
a larger image shows the same things larger.
"""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as PillowImage

Image = NDArray[np.uint8]
Pixels = NDArray[np.float32]

# file inside skimage/data; pixels of the photograph for one drawn pixel (larger: finer structure)
PHOTOGRAPHS: dict[str, tuple[str, tuple[float, float]]] = {
    "grass": ("grass.png", (1.2, 2.2)),
    "gravel": ("gravel.png", (1.4, 2.6)),
    "brick": ("brick.png", (2.2, 3.8)),
    "stars": ("hubble_deep_field.jpg", (1.6, 3.2)),
}
PATTERNS: tuple[str, ...] = ("stripes", "checks", "dots", "zigzag", "grid", "blotches")


@cache
def load_photograph(name: str, halvings: int = 0) -> Image:
    """Photograph ``name`` averaged to half its sides ``halvings`` times; shared: do not write into it."""
    import skimage

    with PillowImage.open(Path(skimage.__file__).parent / "data" / PHOTOGRAPHS[name][0]) as opened:
        pixels = np.asarray(opened.convert("RGB"), dtype=np.uint8)
    height, width = pixels.shape[0] >> halvings, pixels.shape[1] >> halvings
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def draw_patch(rng: Generator, name: str, height: int, width: int, unit: float = 1.0) -> Pixels:
    """Cuts a random window ``[height, width, 3]`` of a photograph: turned, scaled, mirrored, recoloured."""
    zoom = rng.uniform(*PHOTOGRAPHS[name][1]) / unit
    halvings = max(int(np.floor(np.log2(zoom) + 0.25)), 0)  # skipping pixels would turn structure into noise
    source = load_photograph(name, halvings)
    zoom /= 2**halvings
    angle = rng.uniform(0, 2 * np.pi)
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    # Patch pixel (x, y) shows the photograph at  centre + zoom * R(angle) * (x - width / 2, y - height / 2).
    matrix = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
    matrix[:, 2] = rng.uniform((0, 0), source.shape[1::-1]) - matrix[:, :2] @ (width / 2, height / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(source, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32)
    contrast = min(rng.uniform(20.0, 50.0) / max(float(grey.std()), 6.0), 3.0)
    tint = rng.uniform(0.5, 1.0, 3)
    tint = (tint / tint.mean()).astype(np.float32)
    level = np.float32(rng.uniform(60.0, 180.0))
    return ((grey - grey.mean()) * np.float32(contrast) + level)[..., None] * tint


def draw_pattern(rng: Generator, name: str, across: Pixels, along: Pixels) -> Pixels:
    """Evaluates a pattern at the points (across, along) ``[H, W]`` of its own plane, in two random colours.

    Returns:
        ``[H, W, 3]``.
    """
    period = rng.uniform(6.0, 9.0)
    phase = rng.uniform(0, 2 * np.pi, 2)
    u, v = (2 * np.pi / period * axis + start for axis, start in zip((across, along), phase, strict=True))
    if name == "stripes":
        height = np.sin(u)
    elif name == "checks":
        height = 1.5 * np.sin(0.75 * u) * np.sin(0.75 * v)
    elif name == "dots":
        height = np.cos(u) + np.cos(v) - 0.6
    elif name == "zigzag":
        height = np.sin(u + 1.8 * np.arcsin(np.sin(0.7 * v)))
    elif name == "grid":
        height = 3 * np.maximum(np.cos(u), np.cos(v)) - 2.3
    else:  # blotches: waves in all directions
        turns = (np.arange(5) + rng.uniform(0, 0.6, 5)) * np.pi / 5
        starts = rng.uniform(0, 2 * np.pi, 5)
        height = sum(np.cos(0.65 * (np.cos(a) * u + np.sin(a) * v) + b) for a, b in zip(turns, starts, strict=True))
    share = np.clip(0.5 + rng.uniform(0.8, 2.5) * height, 0, 1).astype(np.float32)[..., None]
    first, second = _two_colours(rng)
    return first + share * (second - first)


def _two_colours(rng: Generator) -> tuple[Pixels, Pixels]:
    """Two colours of any hue, either of them the brighter, told apart by their brightness too."""
    middle, half = rng.uniform(90.0, 165.0), rng.choice([-1.0, 1.0]) * rng.uniform(30.0, 80.0)
    tints = rng.uniform(0.4, 1.0, (2, 3))
    tints /= tints.mean(axis=1, keepdims=True)
    first, second = tints * np.array([[middle - half], [middle + half]])
    return first.astype(np.float32), second.astype(np.float32)
