import numpy as np
import torch

from mst_transfer.runs.counter_random import derive_key, sample_generator, uniform

MASK = (1 << 64) - 1


def plain_mix(z: int) -> int:
    z &= MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_splitmix64_golden_values():
    """First outputs of SplitMix64 from seed 1234567, as its authors' published test vector has them."""
    golden = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    state = 1234567
    for value in golden:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        assert plain_mix(state) == value


def test_uniform_equals_python_integers():
    key, ids = derive_key(3, 17, 1), torch.tensor([0, 5, 123456789, 2**40])
    draws = uniform(key, ids, 7)
    for row, sample in enumerate(ids.tolist()):
        base = plain_mix(sample * 0x9E3779B97F4A7C15 + key)
        for column in range(7):
            bits = plain_mix(base + (column + 1) * 0x9E3779B97F4A7C15)
            assert draws[row, column].item() == (bits >> 40) * 2.0**-24


def test_uniform_is_uniform_and_independent_of_the_batch():
    draws = uniform(derive_key(0, 0), torch.arange(2000), 50)
    assert 0 <= draws.min() and draws.max() < 1
    histogram = torch.histc(draws, 20, 0, 1)
    assert (histogram - 5000).abs().max() < 5 * 5000**0.5
    assert torch.equal(draws[[7, 3]], uniform(derive_key(0, 0), torch.tensor([7, 3]), 50))
    pairs = torch.stack([draws[:, :-1].flatten(), draws[:, 1:].flatten()])
    assert abs(torch.corrcoef(pairs)[0, 1]) < 0.02


def test_derive_key_depends_on_order_and_on_every_counter():
    keys = {derive_key(1, 2), derive_key(2, 1), derive_key(1, 2, 0), derive_key(1), derive_key(2), derive_key(1, 3)}
    assert len(keys) == 6


def test_neighbouring_samples_share_no_number() -> None:
    """A counter that ran from one sample's block into the next would repeat its draws, shifted."""
    keys = [
        dict(seed=seed, epoch=epoch, index=index, stream=stream)
        for seed in (0, 1) for epoch in (0, 1) for index in (0, 1, 2) for stream in (1, 2)
    ]  # fmt: skip
    numbers = np.concatenate([sample_generator(**key).random(400) for key in keys])
    assert len(np.unique(numbers)) == len(numbers)
