"""Which training images keep their labels: nested subsets by seed, the same for every checkpoint and protocol."""

import math
import re

import torch
from numpy.typing import NDArray

from mst_transfer.runs.counter_random import derive_key, uniform

_STREAM = 0x1ABE1


def label_subset(num_images: int, labels: int | str, seed: int) -> NDArray:
    """Numbers of the images that keep their labels, int64; a smaller subset of a seed begins a larger one.

    Raises:
        ValueError: ``labels`` is no number in 1 … ``num_images``, and no share of them such as ``"10%"`` (rounded up).
    """
    number = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(%?)", str(labels))
    share = float(number[1]) * (num_images if number[2] else 100) / 100 if number else 0.0  # 100% is exact
    if number is None or not 0 < share <= num_images or not (number[2] or share.is_integer()):
        raise ValueError(
            f"labels = {labels!r} must be a number of training images in 1 … {num_images} (so many there are), or a "
            "share of them above 0% up to 100%, such as 10%"
        )
    draws = uniform(derive_key(seed, _STREAM), torch.arange(num_images), 1)[:, 0]
    return draws.argsort(stable=True)[: max(1, math.ceil(round(share, 6)))].numpy()
