"""The order of samples, however it is split and wherever it is resumed."""

import numpy as np
import pytest
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader, Dataset

from pretrain.data.sampler import EpochSampler

Key = tuple[int, int]


class Keys(Dataset):
    """Gives back the keys it is asked for."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Key) -> Key:
        return key


def micro_batches(sampler: EpochSampler) -> list[list[Key]]:
    keys = list(sampler)
    return [keys[i : i + sampler.batch_size] for i in range(0, len(keys), sampler.batch_size)]


def steps(length: int, batch_size: int, world_size: int, accumulation_steps: int, **state: int) -> list[list[Key]]:
    """Keys of each optimiser step in micro-batch-major, rank-minor order, from all ranks."""
    ranks = []
    for rank in range(world_size):
        sampler = EpochSampler(Keys(length), batch_size, accumulation_steps, 11, rank, world_size)
        sampler.set_epoch(state.get("epoch", 0))
        sampler.set_start_step(state.get("start", 0))
        ranks.append(micro_batches(sampler))
    rows = [[key for micro in together for key in micro] for together in zip(*ranks, strict=True)]
    return [sum(rows[i : i + accumulation_steps], []) for i in range(0, len(rows), accumulation_steps)]


def test_epoch_visits_images_once_and_drops_the_rest() -> None:
    sampler = EpochSampler(Keys(103), 8, seed=0, rank=0, world_size=1)
    keys = list(sampler)
    assert sampler.steps_per_epoch == 12 and len(keys) == len(sampler) == 96
    indices = [index for _, index in keys]
    assert len(set(indices)) == 96 and set(indices) <= set(range(103))
    assert {epoch for epoch, _ in keys} == {0}
    dropped = set()
    for epoch in range(10):
        sampler.set_epoch(epoch)
        dropped |= set(range(103)) - {index for _, index in sampler}
    assert len(dropped) > 7 * 3  # other images are left out in other epochs


@pytest.mark.parametrize(
    ("batch_size", "world_size", "accumulation_steps"),
    [(8, 3, 1), (12, 2, 1), (4, 2, 3), (2, 1, 12), (1, 6, 4)],
)
def test_any_split_of_a_global_batch_trains_on_the_same_steps(
    batch_size: int, world_size: int, accumulation_steps: int
) -> None:
    expected = steps(250, 24, 1, 1, epoch=4)
    assert steps(250, batch_size, world_size, accumulation_steps, epoch=4) == expected
    assert len(expected) == 10 and all(len(step) == 24 for step in expected)
    assert len({key for step in expected for key in step}) == 240


def test_positions_are_those_of_the_docstring() -> None:
    order = [index for _, index in EpochSampler(Keys(48), 48, seed=11, rank=0, world_size=1)]
    batch_size, world_size, accumulation_steps = 2, 3, 2
    global_batch = batch_size * world_size * accumulation_steps
    for rank in range(world_size):
        sampler = EpochSampler(Keys(48), batch_size, accumulation_steps, 11, rank, world_size)
        found = micro_batches(sampler)
        for step in range(48 // global_batch):
            for micro in range(accumulation_steps):
                first = step * global_batch + (micro * world_size + rank) * batch_size
                keys = found[step * accumulation_steps + micro]
                assert [index for _, index in keys] == order[first : first + batch_size]


@pytest.mark.parametrize("start", [0, 1, 7, 10])
def test_resumes_within_an_epoch(start: int) -> None:
    assert steps(250, 4, 2, 3, epoch=2, start=start) == steps(250, 4, 2, 3, epoch=2)[start:]


def test_order_follows_from_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(Keys(64), 8, seed=seed, rank=0, world_size=1)
        sampler.set_epoch(epoch)
        return [index for _, index in sampler]

    assert order(0, 0) == order(0, 0)
    sampler = EpochSampler(Keys(64), 8, seed=0, rank=0, world_size=1)
    sampler.set_start_step(5)
    assert len(list(sampler)) == 24 and len(sampler) == 64
    sampler.set_epoch(2)  # begins at its first step
    assert [index for _, index in sampler] == order(0, 2)
    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1), list(range(64))]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    positions = np.array([order(0, epoch) for epoch in range(400)])
    # No place in the order prefers an image.
    assert np.abs(positions.mean(axis=0) - 31.5).max() < 4.5 * 18.5 / np.sqrt(400)


def test_plain_batches_of_a_loader_are_the_micro_batches() -> None:
    sampler = DATA_SAMPLERS.build(
        dict(type="pretrain.EpochSampler", batch_size=4, accumulation_steps=2),
        default_args=dict(dataset=Keys(50), seed=5),
    )
    sampler.set_epoch(1)
    loader = DataLoader(Keys(50), batch_size=4, sampler=sampler, drop_last=True, num_workers=2)
    loaded = [list(zip(*(column.tolist() for column in batch), strict=True)) for batch in loader]
    assert loaded == micro_batches(sampler)
    assert len(loader) == len(loaded) == 12


def test_too_few_images_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"47 images.*global batch of 48 .*8 x 2 processes x .*3\).*Lower"):
        EpochSampler(Keys(47), 8, 3, seed=0, rank=0, world_size=2)
    assert EpochSampler(Keys(48), 8, 3, seed=0, rank=0, world_size=2).steps_per_epoch == 1


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        EpochSampler(Keys(47), 0, seed=0)
    with pytest.raises(ValueError, match="accumulation_steps=0"):
        EpochSampler(Keys(47), 4, 0, seed=0)
    with pytest.raises(ValueError, match=r"step_in_epoch=12 .* 11 steps \(47 images, global batch 4\)"):
        EpochSampler(Keys(47), 4, seed=0).set_start_step(12)
