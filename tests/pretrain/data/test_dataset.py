"""The multi-crop data set: the same bytes however it is read, and no file that stops a run."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.utils.data import DataLoader

from mst_transfer.runs.unreadable_images import TooManyUnreadableError
from pretrain.data.dataset import MultiCropDataset
from mst_transfer.files.image_folder import read_image
from pretrain.data.sampler import EpochSampler

AsRoot = Callable[[Path], Path | str]
SMALL = dict(global_size=32, local_size=16, num_local_crops=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photograph = data.astronaut()
    for number in range(10):
        cut = photograph[number * 20 : number * 20 + 64, 100 + number * 10 : 190 + number * 10]
        path = tmp_path / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(cut).save(path)
    return tmp_path


def batches(dataset: MultiCropDataset, **options: object) -> list[dict[str, torch.Tensor]]:
    sampler = EpochSampler(dataset, batch_size=4, seed=0, rank=0, world_size=1)
    sampler.set_epoch(3)
    return list(DataLoader(dataset, batch_size=4, sampler=sampler, drop_last=True, **options))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_sample_has_the_promised_fields(folder: Path, as_root: AsRoot) -> None:
    dataset = MultiCropDataset(as_root(folder), **SMALL)
    sample = dataset[(2, 5)]
    assert len(dataset) == 10 and len(dataset.paths) == 10
    assert sample["global_crops"].shape == (2, 3, 32, 32) and sample["global_crops"].dtype == torch.uint8
    assert sample["local_crops"].shape == (3, 3, 16, 16) and sample["local_crops"].dtype == torch.uint8
    assert sample["index"] == 5 and dataset.unreadable == []
    assert same(dataset[5], dataset[(0, 5)])
    none = MultiCropDataset(folder, global_size=32, num_local_crops=0)[(0, 0)]
    assert none["local_crops"].shape == (0, 3, 96, 96)


def test_channels_are_rgb_and_crops_upright(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:32, :, 0], image[32:, :, 2] = 255, 255  # red above blue
    Image.fromarray(image).save(tmp_path / "a.png")
    plain = dict(jitter_prob=0.0, grayscale_prob=0.0, global_blur_probs=(0, 0), global_solarize_probs=(0, 0))
    dataset = MultiCropDataset(tmp_path, global_size=16, global_scale=(1, 1), ratio=(1, 1), **plain)
    crops = dataset[0]["global_crops"]  # [2, 3, 16, 16]
    assert (crops[:, 0, :7] == 255).all() and (crops[:, 2, :7] == 0).all()
    assert (crops[:, 2, 9:] == 255).all() and (crops[:, :2, 9:] == 0).all()


@pytest.mark.parametrize(
    "workers",
    [dict(num_workers=2), pytest.param(dict(num_workers=1, multiprocessing_context="spawn"), marks=pytest.mark.slow)],
)
def test_bytes_do_not_depend_on_workers(folder: Path, workers: dict, as_root: AsRoot) -> None:
    dataset = MultiCropDataset(as_root(folder), **SMALL)
    torch.manual_seed(1)
    alone = batches(dataset)
    torch.manual_seed(2)
    assert all(same(a, b) for a, b in zip(alone, batches(MultiCropDataset(folder, **SMALL)), strict=True))
    assert len(alone) == 2 and alone[0]["global_crops"].shape == (4, 2, 3, 32, 32)
    assert all(same(a, b) for a, b in zip(alone, batches(dataset, **workers), strict=True))


def spoil(folder: Path, dataset: MultiCropDataset, *indices: int) -> None:
    for index in indices:
        path = Path(dataset.paths[index])
        if path.is_file():
            path.write_bytes(path.read_bytes()[:300])
            continue
        dataset.paths.read(index)  # brings the shard into the cache, if there is one
        (shards,) = dataset.paths._parts
        with open(Path(shards.folder, shards.shards[shards.samples[index]["shard"]][0]), "r+b") as file:
            file.seek(shards.samples[index]["offset"] + 300)
            file.write(bytes(int(shards.samples[index]["size"]) - 300))


def test_unreadable_file_is_replaced_counted_and_named_once(
    folder: Path, as_root: AsRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "pretrain.data.dataset.print_log", lambda message, logger, level: messages.append((message, level))
    )
    root = as_root(folder)
    dataset = MultiCropDataset(root, **SMALL)
    healthy = [dataset[(0, i)] for i in range(10)]
    spoil(folder, dataset, 3)
    samples = [dataset[(epoch, i)] for epoch in (0, 1, 0) for i in range(10)]
    assert all(same(samples[i], healthy[i]) for i in range(10) if i != 3)
    assert same(samples[3], samples[23]) and samples[3]["index"] == 3
    assert dataset.unreadable == [dataset.paths[3]]
    assert len(messages) == 1
    assert dataset.paths[3] in messages[0][0] and messages[0][1] == logging.WARNING
    assert same(MultiCropDataset(root, **SMALL)[(0, 3)], samples[3])
    assert all(same(a, b) for a, b in zip(batches(dataset, num_workers=2), batches(dataset), strict=True))


def test_nothing_readable_stops_with_names(folder: Path, as_root: AsRoot) -> None:
    dataset = MultiCropDataset(as_root(folder), **SMALL)
    spoil(folder, dataset, *range(9))  # a replacement may be unreadable too
    assert [dataset[(0, i)]["index"] for i in range(10)] == list(range(10)) and len(dataset.unreadable) == 9
    spoil(folder, dataset, 9)
    with pytest.raises(TooManyUnreadableError, match=r"class0.*could not be read"):
        dataset[(0, 0)]


def test_several_folders_and_a_limit(folder: Path, as_root: AsRoot) -> None:
    both = MultiCropDataset([as_root(folder / "class1"), str(folder / "class0")], **SMALL)
    assert [Path(p).stem for p in both.paths] == ["1", "3", "5", "7", "9", "0", "2", "4", "6", "8"]
    few = MultiCropDataset(as_root(folder), max_images=4, **SMALL)
    assert [Path(p).stem for p in few.paths] == ["0", "4", "1", "5"]
    assert len(MultiCropDataset(folder, max_images=99, **SMALL)) == 10


def test_wrong_arguments_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        MultiCropDataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="max_images=0"):
        MultiCropDataset(folder, max_images=0)
