"""Samples are the same whoever loads them, and none is loaded in vain."""

import pickle
import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_samples import Draws, collate
from mmengine.dataset import BaseDataset, DefaultSampler, InfiniteSampler, pseudo_collate
from torch.utils.data import ConcatDataset, DataLoader, Subset

from mst_transfer.engine.resume.loader import ExactLoader, SeededDataset


def loader(dataset: Any, seed: int = 3, infinite: bool = False, **options: Any) -> ExactLoader:
    sampler = (InfiniteSampler if infinite else DefaultSampler)(dataset)
    exact = ExactLoader(DataLoader(dataset, batch_size=4, sampler=sampler, **{"collate_fn": collate, **options}))
    exact.set_seed(seed)
    return exact


@pytest.mark.parametrize(
    "options",
    [
        dict(num_workers=3, persistent_workers=True, prefetch_factor=3),
        dict(num_workers=1, multiprocessing_context="spawn", persistent_workers=True),  # its start takes seconds
    ],
    ids=["three, persistent", "spawned"],
)
def test_samples_do_not_depend_on_the_workers(options: dict[str, Any]) -> None:
    alone = list(loader(Draws(11)).of_epoch(2))
    shared = loader(Draws(11), **options)
    for _ in range(2):  # persistent workers do not remember
        batches = list(shared.of_epoch(2))
        assert len(batches) == len(alone) == 3
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(batches, alone, strict=True))
    assert torch.equal(torch.cat(list(shared.of_epoch(2, start=2))), alone[2])


def test_draws_differ_between_samples_epochs_and_seeds() -> None:
    numbers = [torch.cat(list(loader(Draws(11), seed).of_epoch(epoch))) for seed in (1, 2) for epoch in (0, 1)]
    for column in (1, 2, 3):
        assert len({float(value) for part in numbers for value in part[:, column]}) == 44
    assert len({tuple(row[4:].tolist()) for part in numbers for row in part}) > 40
    assert all(sorted(part[:, 0].tolist()) == list(range(11)) for part in numbers)


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_nothing_before_the_place_is_loaded(tmp_path: Path, infinite: bool, num_workers: int) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    batches = loader(
        Draws(11, notes), infinite=infinite, num_workers=num_workers, prefetch_factor=1 if num_workers else None
    )
    iterator = iter(batches)
    assert notes.read_text() == ""  # workers start when they are needed
    del iterator
    found = list(islice(batches.from_iteration(100_000), 2))
    assert len(notes.read_text().splitlines()) <= 8 + 4 * num_workers  # and what is fetched ahead
    again = list(islice(loader(Draws(11), infinite=infinite).from_iteration(99_998), 4))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, again[2:], strict=True))


class Refusing(BaseDataset):
    """mmengine's data set with a pipeline that now and then gives nothing, so that another sample takes its place."""

    def load_data_list(self) -> list[dict]:
        return [dict(number=index) for index in range(8)]


class Sometimes:
    """A transform that gives nothing half of the time."""

    def __call__(self, results: dict) -> dict | None:
        return dict(numbers=torch.tensor([results["number"], np.random.rand()])) if random.random() < 0.5 else None


def test_the_replacement_of_a_sample_does_not_depend_on_the_workers() -> None:
    def batches(num_workers: int) -> torch.Tensor:
        data = Refusing(pipeline=[Sometimes()], serialize_data=False)
        return torch.cat(list(loader(data, num_workers=num_workers).of_epoch(0)))

    alone = batches(0)
    assert torch.equal(alone, batches(2)) and len(alone) == 8
    assert alone[:, 0].tolist() != [index for _, index in sum(loader(Draws(8)).batches, [])]  # some were replaced


def test_mixtures_of_images_do_not_depend_on_the_workers() -> None:
    """mmdet's Mosaic and RandomAffine, joined with a repeated data set."""
    import mmdet.datasets.transforms  # noqa: F401
    from mmdet.datasets import MultiImageMixDataset
    from mmengine.dataset import RepeatDataset
    from mmengine.registry import DefaultScope

    class Pictures(BaseDataset):
        METAINFO = dict(classes=("a",))

        def load_data_list(self) -> list[dict]:
            return [dict(number=index) for index in range(4)]

        def prepare_data(self, idx: int) -> dict:
            from mmdet.structures.bbox import HorizontalBoxes

            image = np.full((16, 16, 3), 20 * idx, np.uint8) + np.random.randint(0, 9, (16, 16, 3), np.uint8)
            boxes = HorizontalBoxes(torch.tensor([[2.0, 2.0, 9.0, 9.0]]))
            labels, flags = np.zeros(1, np.int64), np.zeros(1, bool)
            return dict(img=image, img_shape=(16, 16), gt_bboxes=boxes, gt_bboxes_labels=labels, gt_ignore_flags=flags)

    def mixed() -> ConcatDataset:
        mosaic = dict(type="mmdet.Mosaic", img_scale=(16, 16))
        affine = dict(type="mmdet.RandomAffine", border=(-8, -8))
        return ConcatDataset([MultiImageMixDataset(Pictures(), [mosaic, affine]), RepeatDataset(Pictures(), times=2)])

    with DefaultScope.overwrite_default_scope("mmdet"):
        images = []
        for num_workers in (0, 2):
            batches = loader(mixed(), num_workers=num_workers, collate_fn=pseudo_collate).of_epoch(1)
            images.append([np.stack(batch["img"]) for batch in batches])
    assert len(images[0]) == 3 and all(np.array_equal(a, b) for a, b in zip(*images, strict=True))


def test_the_wrapper_is_the_data_set_for_all_else() -> None:
    """Hooks read and replace attributes of ``loader.dataset``; spawned workers get it pickled."""
    data = SeededDataset(Draws(5), seed=7)
    assert len(data) == 5 and data.metainfo["classes"] == ("a",)
    data.pipeline = "second"
    assert data._inner.pipeline == "second" and "pipeline" not in vars(data)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[1, 2]["numbers"], data[1, 2]["numbers"]) and copy.pipeline == "second"
    with pytest.raises(AttributeError, match="absent"):
        data.absent  # noqa: B018
    assert not torch.equal(data[2]["numbers"], data[2]["numbers"])  # an index alone: the generators run on
    subset = SeededDataset(Subset(Draws(5), [3, 4]))  # it has __getitems__, which would load a batch unseeded
    assert not hasattr(subset, "__getitems__") and float(subset[0, 1]["numbers"][0]) == 4
