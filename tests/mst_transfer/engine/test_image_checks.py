"""Runs over data sets with bad images: training skips, counts, names and stops; validation and test name the file."""

import json
from pathlib import Path

import numpy as np
import pytest
from group_members import read_lists_together
from mmengine.config import Config
from PIL import Image
from process_groups import run_group

from mst_transfer.cli.main import main
from mst_transfer.datasets.load_image import LoadImage, LoadSegMap
from mst_transfer.engine import run
from mst_transfer.engine.image_checks import ImageChecks
from mst_transfer.runs.unreadable_images import read_list


def images_of(config: Path) -> Path:
    return Path(Config.fromfile(config).train_dataloader.dataset.data_root) / "images"


def with_other_validation(config: Path, tmp_path: Path) -> list[str]:
    """Options that validate on a copy, so that only training images are bad."""
    import shutil

    root = images_of(config).parent
    shutil.copytree(root, tmp_path / "val")
    return [f"{part}_dataloader.dataset.data_root={tmp_path / 'val'}" for part in ("val", "test")]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks before a run look at some files only: the bad ones are among the others."""
    monkeypatch.setattr(run, "check_inputs", lambda cfg, training: [])


@pytest.mark.usefixtures("unchecked")
def test_training_skips_counts_and_names(tiny_seg_config: Path, tmp_path: Path) -> None:
    options = with_other_validation(tiny_seg_config, tmp_path)
    images = sorted(images_of(tiny_seg_config).iterdir())
    images[1].write_bytes(b"no image")
    mask = next((images_of(tiny_seg_config).parent / "masks").glob(f"{images[2].stem}.*"))
    mask.write_bytes(mask.read_bytes()[:50])
    losses = []
    for num_workers in (0, 2):
        work_dir = tmp_path / f"with_{num_workers}"
        words = ["train", str(tiny_seg_config), "--work-dir", str(work_dir), "--cfg-options", *options]
        assert main([*words, f"train_dataloader.num_workers={num_workers}", "train_cfg.max_epochs=1"]) == 0
        counted = json.loads((work_dir / "results.json").read_text())["unreadable_images"]
        assert counted == {"skipped": 2, "list": "unreadable_images.txt"}
        found = read_list(work_dir / "unreadable_images.txt")
        assert set(found) == {str(images[1]), str(mask)} and found[str(images[1])] == "it is no image"
        log = next(work_dir.glob("*/*.log")).read_text()
        assert f"{images[1]} cannot be read: it is no image. Another sample takes its place" in log
        assert "images that could not be read and were skipped: 2, named in" in log
        lines = [json.loads(line) for line in next(work_dir.glob("*/vis_data/scalars.json")).read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == losses[1]  # what takes the place follows from the seed, not from workers
    assert "LoadImageFromFile" in (work_dir / "tiny_seg.py").read_text()  # as it was written


@pytest.mark.usefixtures("unchecked")
def test_validation_and_test_name_the_file(
    tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = with_other_validation(tiny_seg_config, tmp_path)
    words = [str(tiny_seg_config), "--work-dir", str(tmp_path / "run"), "--cfg-options", *options]
    words += ["train_cfg.max_epochs=1", "val_dataloader.num_workers=1"]
    assert main(["train", *words]) == 0
    bad = sorted((tmp_path / "val" / "images").iterdir())[4]
    bad.write_bytes(b"")
    assert main(["train", *words]) == 1
    capsys.readouterr()
    assert main(["test", words[0], str(tmp_path / "run" / "epoch_1.pth"), *words[1:]]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"mst test: {bad} cannot be read: the file is empty. Only training may leave out an image")


@pytest.mark.usefixtures("unchecked")
def test_too_many_stop_the_run(tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = with_other_validation(tiny_seg_config, tmp_path)
    for path in sorted(images_of(tiny_seg_config).iterdir())[:3]:
        path.write_bytes(b"")
    words = ["train", str(tiny_seg_config), "--work-dir", str(tmp_path / "run"), "--cfg-options", *options]
    assert main([*words, "+image_checks.min_unreadable=1", "+image_checks.max_unreadable_share=0.2"]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "of 8 images cannot be read, more than 1 (max_unreadable_share=0.2, min_unreadable=1)" in said
    assert f"All are named in {tmp_path / 'run' / 'unreadable_images.txt'}" in said
    for path in sorted(images_of(tiny_seg_config).iterdir())[3:]:
        path.write_bytes(b"x")
    assert main(words) == 1
    assert "100 samples in a row cannot be read" in capsys.readouterr().err.strip().splitlines()[-1]


def test_options_are_checked(tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["train", str(tiny_seg_config), "--work-dir", str(tmp_path / "run"), "--cfg-options"]
    assert main([*words, "+image_checks.max_pixel=3"]) == 1
    assert "image_checks has no option max_pixel; it has max_pixels, max_aspect_ratio" in capsys.readouterr().err
    for wrong in (dict(max_pixels=0), dict(max_unreadable_share=-1), dict(min_unreadable=-1), dict(max_aspect_ratio=0)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ImageChecks.of(Config(dict(image_checks=wrong)))


def kinds(pipeline: object) -> list[str]:
    return [type(step).__name__ for step in pipeline.transforms]  # type: ignore[attr-defined]


def test_loaders_are_replaced_wherever_they_are(tiny_seg_config: Path, tmp_path: Path) -> None:
    cfg = run.load_run_config(str(tiny_seg_config), work_dir=str(tmp_path / "run"))
    data = cfg.train_dataloader.dataset
    load, masks = dict(type="LoadImageFromFile", to_float32=True), dict(type="LoadAnnotations")
    choice = dict(type="RandomChoice", transforms=[[load, masks], [load]])
    inner = dict(data, pipeline=[choice])
    cfg.train_dataloader.dataset = dict(
        type="ConcatDataset", datasets=[dict(type="RepeatDataset", dataset=inner, times=2), dict(data)]
    )
    runner = run.build_runner(cfg, [])
    loop = runner.build_train_loop(runner._train_loop)
    first, second = loop.dataloader.dataset.datasets
    (chosen,) = first.dataset.pipeline.transforms
    branches = [kinds(branch) for branch in chosen.transforms]
    assert branches == [["LoadImage", "LoadSegMap"], ["LoadImage"]]
    image = chosen.transforms[0].transforms[0]
    assert isinstance(image, LoadImage) and image.to_float32 and image.on_unreadable.skip
    assert kinds(second.pipeline)[:2] == ["LoadImage", "LoadSegMap"]
    strict = runner.build_val_loop(runner._val_loop).dataloader.dataset.pipeline.transforms
    assert isinstance(strict[1], LoadSegMap) and not strict[0].on_unreadable.skip and not strict[1].on_unreadable.skip


def test_checks_can_be_turned_off(tiny_seg_config: Path, tmp_path: Path) -> None:
    cfg = run.load_run_config(
        str(tiny_seg_config), work_dir=str(tmp_path / "run"), cfg_options={"+image_checks": False}
    )
    runner = run.build_runner(cfg, [])
    loop = runner.build_train_loop(runner._train_loop)
    assert kinds(loop.dataloader.dataset.pipeline)[:2] == ["LoadImageFromFile", "LoadAnnotations"]


@pytest.mark.usefixtures("unchecked")
def test_a_dry_run_names_the_file(tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for path in images_of(tiny_seg_config).iterdir():
        Image.fromarray(np.zeros((1, 500, 3), np.uint8)).save(path)
    assert main(["train", str(tiny_seg_config), "--work-dir", str(tmp_path / "run"), "--dry-run", "1"]) == 1
    assert "it is 500 × 1: one side is more than" in capsys.readouterr().err.strip().splitlines()[-1]


def test_lists_of_two_processes_become_one(tmp_path: Path) -> None:
    work_dir = tmp_path / "run"
    found = run_group(read_lists_together, 2, tmp_path / "all", work_dir, 0.03)
    assert found == [({"skipped": 3, "list": "unreadable_images.txt"}, "")] * 2
    assert [path.name for path in work_dir.iterdir()] == ["unreadable_images.txt"]
    assert list(read_list(work_dir / "unreadable_images.txt")) == ["0.jpg", "1.jpg", "common.jpg"]


def test_the_limit_is_of_all_processes_together(tmp_path: Path) -> None:
    """Two each are allowed, three in all are not; both say so."""
    found = run_group(read_lists_together, 2, tmp_path / "all", tmp_path / "run", 0.02)
    assert all(info is None and "3 of 100 images cannot be read, more than 2" in text for info, text in found)
