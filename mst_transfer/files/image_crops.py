"""Boxes of images, drawn and resized: uint8 RGB arrays [H, W, 3]."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def resize(image: Image, height: int, width: int) -> Image:
    """Resizes with the antialiased bicubic filter that PIL uses.

    OpenCV's ``INTER_CUBIC`` would neither antialias nor use the same cubic (1.4 to 2.8 grey levels away).

    Returns:
        [height, width, 3], contiguous as the image must be.
    """
    if image.shape[:2] == (height, width):
        return image
    # [1, h, w, 3] seen as [1, 3, h, w]: with the strides of channels-last memory, the batch's among them,
    # torch answers in the same layout; otherwise it copies twice, and the whole takes 2.5 times as long.
    planes = torch.from_numpy(image).unsqueeze(0).permute(0, 3, 1, 2)
    resized = F.interpolate(planes, size=(height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def resized_crop(image: Image, top: int, left: int, height: int, width: int, size: int) -> Image:
    """Cuts a box inside the image, in pixels, and resizes it to [size, size, 3], contiguous; see ``resize``."""
    return resize(np.ascontiguousarray(image[top : top + height, left : left + width]), size, size)


def draw_box(
    draws: Sequence[float],
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Chooses a box as torchvision's ``RandomResizedCrop.get_params`` does.

    The first of ten proposals (area uniform, ratio log-uniform) that fits into the image, at a uniform place;
    if none fits, the largest central box within the range of ratios.

    22 or more uniform numbers in [0, 1), for ten areas, ten ratios, top and left; the ranges of the box's share of the
    image area and of its width / height → top, left, height, width in pixels.
    """
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for area_draw, ratio_draw in zip(draws[:10], draws[10:20], strict=True):
        area = height * width * (scale[0] + area_draw * (scale[1] - scale[0]))
        aspect = math.exp(log_low + ratio_draw * (log_high - log_low))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(draws[20] * (height - box_height + 1))
            left = int(draws[21] * (width - box_width + 1))
            return top, left, box_height, box_width
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        box_width = max(1, round(height * ratio[1]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width
