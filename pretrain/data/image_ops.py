"""The pixel operations of DINO's multi-crop augmentation, on uint8 RGB arrays [H, W, 3].

Each reproduces what torchvision's transforms do to a PIL image, several times faster:

========== ============================= ==========================================================
operation  done here by                  against torchvision/PIL (mean absolute grey levels)
========== ============================= ==========================================================
resize     torch, bicubic, antialiased   0.2 (the cubic of both has a = -0.5; each is 0.3 from exact)
brightness colour matrix                 equal
contrast   colour matrix                 equal, but for the grey mean's rounding (at most 1)
saturation colour matrix                 0.16 (at most 1)
hue        8-bit HSV of OpenCV           0.3 to 0.6 (PIL truncates, OpenCV rounds)
grayscale  ITU-R 601-2 weights           equal (at most 1)
blur       PIL's three box filters, as   0.2 to 0.6 (at most 3 but at the border)
           one separable kernel
solarize   look-up table                 equal
========== ============================= ==========================================================

``tests/pretrain/data/test_image_ops.py`` holds every row to its tolerance.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mst_transfer.files.image_crops import Image

# Colour matrices [3, 4], the last column an offset: out = matrix @ (red, green, blue, 1), rounded, clipped.
_KEEP = np.eye(3, 4, dtype=np.float32)
_GRAY = np.array([[0.299, 0.587, 0.114, 0]] * 3, dtype=np.float32)
_OFFSET = np.array([[0, 0, 0, 1]] * 3, dtype=np.float32)
_TRUNCATE = -0.4995 * _OFFSET  # makes OpenCV's rounding PIL's truncation; whole numbers stay


def adjust_brightness(image: Image, factor: float) -> Image:
    """Blends with black: ``factor`` 0 is black, 1 the image itself."""
    return cv2.transform(image, factor * _KEEP + _TRUNCATE)


def adjust_contrast(image: Image, factor: float) -> Image:
    """Blends with the mean grey of the image: ``factor`` 0 is flat grey, 1 the image itself."""
    red, green, blue, _ = cv2.mean(image)
    mean = int(0.299 * red + 0.587 * green + 0.114 * blue + 0.5)
    return cv2.transform(image, factor * _KEEP + (_TRUNCATE + (1 - factor) * mean * _OFFSET))


def adjust_saturation(image: Image, factor: float) -> Image:
    """Blends with the grey image: ``factor`` 0 is grey, 1 the image itself."""
    return cv2.transform(image, factor * _KEEP + ((1 - factor) * _GRAY + _TRUNCATE))


def adjust_hue(image: Image, shift: float) -> Image:
    """Turns the hue by ``shift`` of the colour circle, in [-0.5, 0.5]."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    height, width = image.shape[:2]
    row = np.zeros(3 * width, dtype=np.uint8)
    row[::3] = int(shift * 255) % 256
    values = hsv.reshape(height, 3 * width)
    np.add(values, row, out=values)  # wraps at 256 as the circle does
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def to_grayscale(image: Image) -> Image:
    """Grey of the image, [H, W]: one plane for what follows, and three equal ones at the end."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def solarize(image: Image, threshold: int = 128) -> Image:
    """Inverts every value at or above ``threshold``."""
    return cv2.LUT(image, _solarize_table(threshold))


@lru_cache(maxsize=8)
def _solarize_table(threshold: int) -> Image:
    levels = np.arange(256)
    return np.where(levels < threshold, levels, 255 - levels).astype(np.uint8)


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Blurs as ``PIL.ImageFilter.GaussianBlur(sigma)`` does.

    PIL approximates the Gaussian by three box filters whose ends have a fractional weight. Their convolution
    is one symmetric kernel of 3 to 13 taps for sigma up to 2. The image is mirrored at its border: PIL
    repeats the border before each box, which comes to nearly the same. What remains is PIL's rounding after
    each box: at most 3 grey levels, 15 in the outermost pixels. Sigma is rounded to hundredths, so that
    kernels are computed once.
    """
    kernel = box_blur_kernel(round(sigma, 2))
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)


@lru_cache(maxsize=1024)
def box_blur_kernel(sigma: float) -> NDArray[np.float32]:
    """The taps of three extended box filters of joint standard deviation ``sigma``, without vanishing ends.

    Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", SSVM 2011,
    equations 7, 11 and 14; PIL's ``BoxBlur.c`` implements the same.
    """
    variance = sigma * sigma / 3
    inner = int((np.sqrt(12 * variance + 1) - 1) / 2)
    end = (2 * inner + 1) * (inner * (inner + 1) - 3 * variance) / (6 * (variance - (inner + 1) ** 2))
    box = np.ones(2 * inner + 3)
    box[[0, -1]] = end
    kernel = np.convolve(np.convolve(box, box), box)
    kernel /= kernel.sum()
    while len(kernel) > 3 and kernel[0] < 1e-3:
        kernel = kernel[1:-1]
    return (kernel / kernel.sum()).astype(np.float32)
