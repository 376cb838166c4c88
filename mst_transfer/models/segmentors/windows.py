"""Where the windows of a sliding inference lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one side: a stride apart, the last one moved back to end with the side.

    Args:
        length: Side of the image in pixels.
        window: Side of the window, at most ``length``.
        stride: Pixels from one window to the next.
    """
    number = -(-(length - window) // stride) + 1
    return [min(index * stride, length - window) for index in range(number)]


def coverage(starts: Sequence[Sequence[int]], image_size: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """How many windows see each pixel, ``[H, W]``.

    Args:
        starts: First rows and first columns of the windows.
        image_size: H and W.
        size: Rows and columns of a window.

    Raises:
        ValueError: if a pixel is seen by none, since the strides are larger than the windows.
    """
    lines = []
    for firsts, length, window in zip(starts, image_size, size, strict=True):
        line = torch.zeros(length)
        for first in firsts:
            line[first : first + window] += 1
        lines.append(line)
    if any((line == 0).any() for line in lines):
        raise ValueError(f"windows of {tuple(size)} leave gaps: test_cfg.stride must not exceed test_cfg.crop_size")
    return lines[0][:, None] * lines[1]
