"""Counter-based randomness of training: what a draw depends on is named, not remembered.

Transforms, samplers of boxes, dropout and stochastic depth draw from the global generators of python, numpy, torch
and OpenCV. These are seeded afresh for each sample, from (seed, epoch, index), and for each iteration, from (seed,
iteration, rank). Whatever came before, on whichever worker, then leaves no trace.
"""

import hashlib
import random
from enum import IntEnum

_WORD = (1 << 32) - 1


class Stream(IntEnum):
    """What draws are for: equal counters of two streams give unrelated numbers."""

    ORDER = 1  # (epoch,): permutation of the samples
    SAMPLE = 2  # (epoch, index): loading and augmentation
    ITERATION = 3  # (iteration, rank): the model's forward pass
    FOREIGN_ORDER = 4  # (epoch,): a sampler that is not ours


def derive_seed(seed: int, stream: Stream, *counters: int) -> int:
    """A number in [0, 2^64) that follows from its arguments, and changes with any of them (BLAKE2b)."""
    text = ",".join(str(int(value)) for value in (seed, stream, *counters))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def seed_sample(seed: int) -> None:
    """Seeds the generators that loading a sample may draw from: python's, numpy's, torch's on the CPU, OpenCV's.

    Args:
        seed: in [0, 2^64).
    """
    import cv2
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed([seed & _WORD, seed >> 32])
    torch.default_generator.manual_seed(seed)
    cv2.setRNGSeed(seed & (_WORD >> 1))


def seed_iteration(seed: int) -> None:
    """The same, and the generators of all devices.

    Args:
        seed: in [0, 2^64).
    """
    import torch

    seed_sample(seed)
    torch.manual_seed(seed)
