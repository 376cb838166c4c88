"""Counter-based random numbers: every draw is a function of what it is for, never of what was drawn before.

A run is then reproducible from its config, resuming at any step is exact, and a sample draws the same numbers on
whichever worker, rank or micro-batch it lands. All keys come from SplitMix64 (Steele et al., "Fast splittable
pseudorandom number generators", OOPSLA 2014) on wrapping 64-bit integers, the same on CPU and GPU:

- ``uniform`` draws from a key for a whole batch, on its device (masks).
- ``seed_sample`` and ``seed_iteration`` seed the generators of python, numpy, OpenCV and torch with a key, for
  what draws from these: transforms, samplers of boxes, dropout, stochastic depth.
- ``sample_generator`` has no need of a key: Philox takes the counters themselves (augmentation, order of images).
"""

import random
from enum import IntEnum

import cv2
import numpy as np
import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB


class Stream(IntEnum):
    """The draws of a head's training: equal counters of two streams give unrelated numbers."""

    ORDER = 1  # (epoch,): permutation of the samples
    SAMPLE = 2  # (epoch, index): loading and augmentation
    ITERATION = 3  # (iteration, rank): the model's forward pass


def _signed(value: int) -> int:
    """Two's complement reading of a 64-bit unsigned integer."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


def mix64(value: int) -> int:
    """SplitMix64's finaliser on a Python integer, in [0, 2^64)."""
    value &= _MASK64
    value = ((value ^ (value >> 30)) * _MIX1) & _MASK64
    value = ((value ^ (value >> 27)) * _MIX2) & _MASK64
    return value ^ (value >> 31)


def derive_key(*counters: int) -> int:
    """Makes one key in [0, 2^64) out of any number of integers, such as (seed, stream, epoch); the order matters."""
    key = 0
    for counter in counters:
        key = mix64(key + _GOLDEN + mix64(int(counter) + _GOLDEN))
    return key


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's ``>>`` on int64 repeats the sign bit."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix64_tensor(value: Tensor) -> Tensor:
    value = (value ^ _shift_right(value, 30)) * _signed(_MIX1)
    value = (value ^ _shift_right(value, 27)) * _signed(_MIX2)
    return value ^ _shift_right(value, 31)


def uniform(key: int, sample_ids: Tensor, num_draws: int) -> Tensor:
    """Independent uniform numbers in [0, 1), multiples of 2^-24, by a key such as ``derive_key(seed, step, view)``.

    Samples int64 [B] → float32 [B, num_draws] on their device; equal ids give equal rows.
    """
    rows = _mix64_tensor(sample_ids.to(torch.int64) * _signed(_GOLDEN) + _signed(key))
    columns = torch.arange(1, num_draws + 1, device=sample_ids.device, dtype=torch.int64) * _signed(_GOLDEN)
    bits = _mix64_tensor(rows[:, None] + columns[None, :])
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24


def sample_generator(seed: int, epoch: int, index: int, stream: int) -> np.random.Generator:
    """A generator whose numbers are a function of its arguments alone (Philox, counter-based)."""
    counter = np.array([0, stream, epoch, index], dtype=np.uint64)
    key = np.array([seed & _MASK64, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def seed_sample(key: int) -> None:
    """Seeds the generators that loading a sample may draw from: python's, numpy's, torch's on the CPU, OpenCV's."""
    random.seed(key)
    np.random.seed([key & 0xFFFFFFFF, key >> 32])
    torch.default_generator.manual_seed(key)
    cv2.setRNGSeed(key & 0x7FFFFFFF)


def seed_iteration(key: int) -> None:
    """Seeds the same, and torch's generators of all devices."""
    seed_sample(key)
    torch.manual_seed(key)
