"""Photometry on the device within data set, preprocessor and training."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pretrain.data.dataset import MultiCropDataset
from pretrain.data.sampler import EpochSampler
from pretrain.model import MST
from pretrain.run.preprocessor import PretrainPreprocessor
from pretrain.run.train import build_parser, build_runner, load_config, main

SMALL = dict(global_size=32, local_size=16, num_local_crops=3)
ON_DEVICE = "train_dataloader.dataset.photometric=device"


def batches(folder: Path, num_workers: int = 0, start_step: int = 0, **options: object) -> list[dict[str, Tensor]]:
    dataset = MultiCropDataset(folder, **{**SMALL, **options})
    sampler = EpochSampler(dataset, batch_size=4, seed=0, rank=0, world_size=1)
    sampler.set_epoch(3)
    sampler.set_start_step(start_step)
    return list(DataLoader(dataset, batch_size=4, sampler=sampler, drop_last=True, num_workers=num_workers))


def test_views_are_those_of_the_loader(photo_folder: Path) -> None:
    preprocess = PretrainPreprocessor()
    for loaded, left in zip(batches(photo_folder), batches(photo_folder, photometric="device"), strict=True):
        finished = preprocess(left, True)
        assert finished.keys() == loaded.keys() and "global_photometry" in left
        for name, expected in loaded.items():
            error = (finished[name].int() - expected.int()).abs()
            assert error.max() <= 2 and (error > 0).float().mean() < 1e-3, name
        assert not torch.equal(left["local_crops"], loaded["local_crops"])


def test_neither_workers_nor_an_interruption_change_a_byte(photo_folder: Path) -> None:
    alone = batches(photo_folder, photometric="device")
    workers = batches(photo_folder, num_workers=2, photometric="device")
    resumed = batches(photo_folder, start_step=2, photometric="device")
    assert len(alone) == 6 and len(resumed) == 4
    for others, start in ((workers, 0), (resumed, 2)):
        for ours, theirs in zip(alone[start:], others, strict=True):
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_finished_batches_pass_unchanged(crops) -> None:
    batch = crops()
    assert all(value is batch[name] for name, value in PretrainPreprocessor()(batch).items())


def test_batch_without_local_views(photo_folder: Path) -> None:
    batch = batches(photo_folder, num_local_crops=0, photometric="device")[0]
    assert PretrainPreprocessor()(batch)["local_crops"].shape == (4, 0, 3, 16, 16)


def test_wrong_value_is_refused(photo_folder: Path) -> None:
    with pytest.raises(ValueError, match="photometric='gpu' is not allowed: 'loader' or 'device'"):
        MultiCropDataset(photo_folder, photometric="gpu")


def test_training_sees_the_loaders_views_and_resumes_exactly(tiny_config: Path, tmp_path: Path) -> None:
    def train(name: str, *words: str) -> dict[str, Tensor]:
        assert main([str(tiny_config), "--work-dir", str(tmp_path / name), *words]) == 0
        return torch.load(tmp_path / name / "iter_12.pth", weights_only=True)["state_dict"]

    whole = train("whole", "--cfg-options", ON_DEVICE)
    (tmp_path / "resumed").mkdir()
    (tmp_path / "resumed" / "iter_8.pth").write_bytes((tmp_path / "whole" / "iter_8.pth").read_bytes())
    resumed = train("resumed", "--resume", "--cfg-options", ON_DEVICE)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_batches_are_pinned_where_there_is_a_gpu(tiny_config: Path, tmp_path: Path) -> None:
    for words, wanted in (([], True), (["--cfg-options", "train_dataloader.pin_memory=False"], False)):
        args = build_parser().parse_args([str(tiny_config), "--work-dir", str(tmp_path / f"run_{wanted}"), *words])
        runner = build_runner(load_config(args), "none")
        assert runner.train_loop.dataloader.loader.pin_memory == (wanted and torch.cuda.is_available())
        assert runner.model.data_preprocessor._non_blocking


def test_a_batch_whose_colours_are_not_augmented_yet_is_refused() -> None:
    backbone = dict(arch="vit_tiny_patch16_224", img_size=32, embed_dim=16, depth=1, num_heads=1)
    model = MST(backbone=backbone, head=dict(out_dim=8, hidden_dim=8, bottleneck_dim=4))
    crops = torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)
    batch = dict(global_crops=crops, local_crops=crops[:, :0], index=torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"holds \['global_photometry'\].*model.data_preprocessor"):
        model(**batch, global_photometry=torch.zeros(1, 2, 22))
