"""Which samples make up which batch, against plain loops and against mmengine's and mmdet's own samplers."""

from itertools import islice
from typing import Any

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, RandomSampler, Sampler

from mst_transfer.engine.resume import order
from mst_transfer.engine.resume.order import ExactBatchSampler, UnknownOrderError, exact_batches
from mst_transfer.runs.counter_random import Stream, derive_key

SPLITS = [(1, 12), (2, 6), (3, 4), (4, 3)]  # processes × batch size = 12


class Pictures:
    """Anything with a length and shapes, like mmdet's data sets."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def get_data_info(self, index: int) -> dict[str, int]:
        return dict(width=40 + 7 * (index % 5), height=55)  # 3 of 5 are tall


class Replay(Sampler):
    """A sampler that says what it is told to."""

    def __init__(self, dataset: Any, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __iter__(self) -> Any:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def of_process(rank: int, world_size: int, size: int, batch_size: int, **options: Any) -> ExactBatchSampler:
    """One process's of several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "get_dist_info", lambda: (rank, world_size))
        return ExactBatchSampler(Pictures(size), batch_size, **options)


def joined(size: int, count: int, start: int = 0, **options: Any) -> dict[tuple[int, int], list[list[Any]]]:
    """For every split over processes: batches from ``start`` on, of all processes put together."""
    result = {}
    for world_size, batch_size in SPLITS:
        parts = []
        for rank in range(world_size):
            batches = of_process(rank, world_size, size, batch_size, **options)
            batches.seed = 3
            batches.seek(0, start)
            parts.append(list(islice(batches, count)))
        result[world_size, batch_size] = [sum(step, []) for step in zip(*parts, strict=True)]
    return result


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("aspect_unit", [None, 3])
def test_iterations_do_not_depend_on_the_number_of_processes(infinite: bool, aspect_unit: int | None) -> None:
    steps = joined(48, 4, infinite=infinite, aspect_unit=aspect_unit)
    assert all(split == steps[1, 12] for split in steps.values())
    assert sorted(index for step in steps[1, 12] for _, index in step) == list(range(48))
    wide = [Pictures(48).get_data_info(index)["width"] >= 55 for step in steps[1, 12] for _, index in step]
    uniform = [len(set(wide[at : at + 3])) == 1 for at in range(0, 45, 3)]
    assert all(uniform) == (aspect_unit is not None)


def test_the_end_of_an_epoch() -> None:
    """A smaller batch, filled up from the epoch's beginning where processes would not get equally many."""
    steps = joined(29, 3)
    whole = steps[1, 12]
    assert [len(step) for step in whole] == [12, 12, 5]
    for (world_size, _), split in steps.items():
        missing = -5 % world_size
        assert split == [*whole[:2], whole[2] + whole[0][:missing]]
    tiny = joined(1, 1)
    assert [len(step[0]) for step in tiny.values()] == [1, 2, 3, 4]
    assert [len(step) for step in joined(29, 3, drop_last=True)[2, 6]] == [12, 12]
    with pytest.raises(ValueError, match=r"11 samples make no batch of 12 \(6 a process × 2 processes, drop_last\)"):
        of_process(0, 2, 11, 6, drop_last=True)


def test_endless_batches_run_from_epoch_into_epoch() -> None:
    """A plain loop: every epoch's own permutation, one behind the other."""
    batches = ExactBatchSampler(Pictures(7), 3, infinite=True)
    batches.seed = 5
    expected = []
    for epoch in range(9):
        generator = torch.Generator().manual_seed(derive_key(5, Stream.ORDER, epoch))
        expected += [(epoch, int(index)) for index in torch.randperm(7, generator=generator)]
    assert sum(islice(batches, 21), []) == expected
    assert len(batches) == 3
    assert len({tuple(index for _, index in expected[at : at + 7]) for at in range(0, 63, 7)}) == 9


@pytest.mark.parametrize("options", [{}, {"infinite": True}, {"aspect_unit": 4}, {"infinite": True, "aspect_unit": 4}])
def test_any_place_is_entered(options: dict[str, Any]) -> None:
    batches = ExactBatchSampler(Pictures(50), 4, **options)
    batches.set_epoch(2)
    count = 60 if "infinite" in options else 13
    whole = list(islice(batches, count))
    assert len(whole) == count
    for start in (0, 1, 5, 12, count - 1):
        batches.seek(2, start)
        assert list(islice(batches, count - start)) == whole[start:]


@pytest.mark.parametrize("infinite", [False, True])
def test_several_processes_enter_the_same_place(infinite: bool) -> None:
    whole = joined(48, 4, infinite=infinite)
    assert joined(48, 2, start=2, infinite=infinite) == {split: steps[2:] for split, steps in whole.items()}


@pytest.mark.parametrize("count", [24, 37])
@pytest.mark.parametrize("drop_last", [False, True])
def test_aspect_ratios_are_grouped_as_in_mmdet(count: int, drop_last: bool) -> None:
    from mmdet.datasets.samplers import AspectRatioBatchSampler

    ours = ExactBatchSampler(Pictures(count), 4, aspect_unit=4, drop_last=drop_last)
    plain = ExactBatchSampler(Pictures(count), 4)
    theirs = AspectRatioBatchSampler(Replay(Pictures(count), list(plain.order(0))), 4, drop_last=drop_last)
    found, expected = [[index for _, index in batch] for batch in ours], list(theirs)
    assert len(found) == len(theirs) and found[: len(expected)] == expected
    # mmdet's leaves out a last batch that is whole, against its own length
    assert len(expected) == len(theirs) - (drop_last and count == 24)


def test_seed_and_epoch_decide() -> None:
    orders = set()
    for seed in range(3):
        batches = ExactBatchSampler(Pictures(20), 4)
        batches.seed = seed
        orders |= {tuple(batches.order(epoch)) for epoch in range(3)}
    assert len(orders) == 9  # mmengine's seed 0, epoch 1 is its seed 1, epoch 0
    assert list(ExactBatchSampler(Pictures(5), 2, shuffle=False)) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]


def test_configs_samplers_are_understood() -> None:
    from mmdet.datasets.samplers import AspectRatioBatchSampler

    data = Pictures(9)
    finite = exact_batches(BatchSampler(DefaultSampler(data, shuffle=False), 2, True), data)
    assert isinstance(finite, ExactBatchSampler)
    assert (finite.shuffle, finite.infinite, finite.drop_last, finite.aspect_unit) == (False, False, True, None)
    endless = exact_batches(BatchSampler(InfiniteSampler(data), 2, False), data)
    assert isinstance(endless, ExactBatchSampler) and endless.infinite and endless.shuffle
    grouped = exact_batches(AspectRatioBatchSampler(DefaultSampler(data), 2), data)
    assert isinstance(grouped, ExactBatchSampler) and grouped.aspect_unit == 2
    with pytest.raises(UnknownOrderError, match="that of RandomSampler and BatchSampler"):
        exact_batches(BatchSampler(RandomSampler(range(9)), 2, False), data)
