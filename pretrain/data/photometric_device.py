"""Colour jitter, grey, blur and solarisation of whole batches, in plain torch operations on any device.

Each function does to every view of a batch what its namesake in :mod:`pretrain.data.image_ops` does to one image, with the
same roundings to whole grey levels. Nothing depends on the values: every operation is carried out on all views, with
numbers that change nothing where it was not drawn. So the host never waits for the device, and shapes stay fixed.

Legend: n views of one size S, all images float32 [n, 3, S, S] with whole numbers from 0 to 255.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data import photometric_plan as columns

_GRAY = (0.299, 0.587, 0.114)
_GRAY_32768THS = (9798.0, 19235.0, 3735.0)  # OpenCV's
# What is added before rounding to even, so that values are truncated but for the last 2000th of a level.
_TRUNCATE, _TRUNCATE_1024THS = -0.4995, 1.5 / 1024 - 0.5


@torch.no_grad()
def apply_photometry(crops: Tensor, rows: Tensor) -> Tensor:
    """Carries out the photometric part of the plans of a batch.

    Args:
        crops: uint8 [..., 3, S, S].
        rows: float32 [..., P], see :func:`pretrain.data.photometric_plan.as_rows`; on the device of the crops.

    Returns:
        uint8, shaped as ``crops``.
    """
    if crops.numel() == 0:
        return crops
    x, rows = crops.flatten(0, -4).float(), rows.flatten(0, -2)
    with torch.autocast(x.device.type, enabled=False):
        blends = rows[:, columns.BLENDS].unflatten(1, (-1, 3))  # [n, number of blends, 3]
        for number in range(columns.BLENDS_BEFORE):
            x = blend(x, blends[:, number])
        x = turn_hue(x, rows[:, columns.HUE])
        for number in range(columns.BLENDS_BEFORE, blends.shape[1]):
            x = blend(x, blends[:, number])
        x = to_grayscale(x, rows[:, columns.GRAYSCALE])
        x = gaussian_blur(x, rows[:, columns.NUM_COLUMNS :])
        x = solarize(x, rows[:, columns.SOLARIZE])
    return x.to(torch.uint8).view_as(crops)


def blend(x: Tensor, shares: Tensor) -> Tensor:
    """Brightness, contrast or saturation: mixes each image with its grey version and with its mean grey.

    Args:
        x: [n, 3, S, S].
        shares: [n, 3], of the image, its grey version and its mean grey.
    """
    keep, gray, mean = shares.unbind(1)
    weights = torch.stack([torch.full_like(gray, weight) for weight in _GRAY], dim=1)  # [n, 3], made on the device
    matrix = keep.view(-1, 1, 1) * torch.eye(3, device=x.device) + (gray.unsqueeze(1) * weights).unsqueeze(1)
    is_mixed = gray != 0  # such a matrix [out, in] has 10 binary places in OpenCV
    matrix = torch.where(is_mixed.view(-1, 1, 1), (matrix * 1024).round() / 1024, matrix)
    mean_gray = ((x.mean(dim=(2, 3)) * weights).sum(1) + 0.5).floor()
    offset = mean * mean_gray + torch.where(is_mixed, _TRUNCATE_1024THS, _TRUNCATE)
    red, green, blue = matrix[..., None, None].unbind(2)  # [n, out, 1, 1]
    mixed = x[:, 0:1] * red
    mixed = mixed.addcmul_(x[:, 1:2], green).addcmul_(x[:, 2:3], blue)
    return mixed.add_(offset.view(-1, 1, 1, 1)).round_().clamp_(0, 255)


def turn_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue by ``shift`` [n] 256ths of the colour circle, through OpenCV's 8-bit HSV; negative: not at all."""
    red, green, blue = x.unbind(1)
    value, low = x.amax(dim=1), x.amin(dim=1)
    spread = value - low
    saturation = _scaled(spread, 255 * 4096 / value.clamp(min=1))
    hue = torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    hue = torch.where(value == red, green - blue, hue)
    hue = _scaled(hue, 256 * 4096 / (6 * spread.clamp(min=1)))
    hue = torch.remainder(hue + shift.view(-1, 1, 1), 256) * (6 / 255)  # OpenCV's circle: 256 levels there, 255 back
    shares = torch.stack([(hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs()], dim=1).clamp_(0, 1)
    chroma = (value * saturation * (1 / 255)).unsqueeze(1)
    turned = torch.addcmul(value.unsqueeze(1), chroma, shares - 1).round_().clamp_(0, 255)
    return torch.where(shift.view(-1, 1, 1, 1) >= 0, turned, x)


def _scaled(x: Tensor, factor: Tensor) -> Tensor:
    """OpenCV's product with a factor that is rounded to a 4096th, rounded; all numbers are whole and below 2^24."""
    return (x * factor.round() + 2048).mul_(1 / 4096).floor_()


def to_grayscale(x: Tensor, wanted: Tensor) -> Tensor:
    """Three equal planes of grey where ``wanted`` [n] is not 0."""
    red, green, blue = _GRAY_32768THS
    gray = x[:, 0:1] * red + x[:, 1:2] * green + x[:, 2:3] * blue
    return torch.where(wanted.view(-1, 1, 1, 1) != 0, ((gray + 16384) / 32768).floor_(), x)


def gaussian_blur(x: Tensor, taps: Tensor) -> Tensor:
    """Convolves rows and columns of each image with its own symmetric kernel; the image is mirrored at its border.

    Args:
        x: [n, 3, S, S].
        taps: [n, R + 1], from the centre outwards.
    """
    n, channels, height, width = x.shape
    radius = taps.shape[1] - 1
    if radius == 0:
        return x
    kernel = torch.cat([taps[:, 1:].flip(1), taps], dim=1)  # [n, 2 R + 1]
    kernel = kernel.repeat_interleave(channels, dim=0)  # [n * 3, 2 R + 1]: every plane is a group of its own
    planes = x.reshape(1, n * channels, height, width)
    planes = planes.index_select(3, _mirrored(width, radius, x.device))
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=n * channels)
    planes = planes.index_select(2, _mirrored(height, radius, x.device))
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=n * channels)
    return planes.view_as(x).round_().clamp_(0, 255)


def _mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Indices -radius … size - 1 + radius, those outside mirrored at the outer edge of the border: 1 0 | 0 1 2."""
    index = torch.arange(-radius, size + radius, device=device).remainder(2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Inverts every value at or above the ``threshold`` [n] of its image; 256 leaves an image as it is."""
    return torch.where(x < threshold.view(-1, 1, 1, 1), x, 255 - x)
