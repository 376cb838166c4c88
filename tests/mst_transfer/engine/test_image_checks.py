"""Runs over data sets with bad images: training skips, counts, names and stops; validation and test name the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from group_members import read_lists_together
from mmengine.config import Config
from PIL import Image
from process_groups import run_group
from untouched_folders import refusal

from mst_transfer.cli.main import main
from mst_transfer.datasets.load_image import LoadImage, LoadSegMap
from mst_transfer.engine import run
from mst_transfer.engine.image_checks import ImageChecks
from mst_transfer.runs.unreadable_images import read_list


@pytest.fixture
def images(tiny_seg_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Of training alone: validation is on a copy, and the checks before a run, which look at some files, see none."""
    monkeypatch.setattr(run, "check_inputs", lambda cfg, training: [])
    root = Path(Config.fromfile(tiny_seg_config).train_dataloader.dataset.data_root)
    shutil.copytree(root, tmp_path / "val")
    with tiny_seg_config.open("a") as file:
        data = f"dict(_dataset, data_root={str(tmp_path / 'val')!r})"
        file.write(f"val_dataloader = test_dataloader = dict(val_dataloader, dataset={data})")
    return sorted((root / "images").iterdir())


def test_training_skips_counts_and_names(images: list[Path], tmp_path: Path, train) -> None:
    images[1].write_bytes(b"no image")
    mask = images[2].parent.parent / "masks" / f"{images[2].stem}.png"
    mask.write_bytes(mask.read_bytes()[:50])
    losses = []
    for num_workers in (0, 2):
        work_dir = tmp_path / f"with_{num_workers}"
        options = [f"train_dataloader.num_workers={num_workers}", "train_cfg.max_epochs=1"]
        train(into=work_dir.name, options=options)
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


def test_validation_and_test_name_the_file(images: list[Path], tiny_seg_config: Path, tmp_path: Path, train) -> None:
    options = ["train_cfg.max_epochs=1", "val_dataloader.num_workers=1"]
    train(options=options)
    bad = tmp_path / "val" / "images" / images[4].name
    bad.write_bytes(b"")
    said = f"{bad} cannot be read: the file is empty. Only training may leave out an image"
    assert said in train(into="again", options=options, status=1)
    words = [str(tiny_seg_config), str(tmp_path / "run" / "epoch_1.pth"), "--work-dir", str(tmp_path / "tested")]
    assert refusal(main, ["test", *words]).splitlines()[-1].startswith(f"mst test: {said}")


def test_too_many_stop_the_run(images: list[Path], tmp_path: Path, train) -> None:
    for path in images[:3]:
        path.write_bytes(b"")
    said = train(options=["+image_checks.min_unreadable=1", "+image_checks.max_unreadable_share=0.2"], status=1)
    assert "of 8 images cannot be read, more than 1 (max_unreadable_share=0.2, min_unreadable=1)" in said
    assert f"All are named in {tmp_path / 'run' / 'unreadable_images.txt'}" in said
    for path in images[3:]:
        path.write_bytes(b"x")
    assert "100 samples in a row cannot be read" in train(status=1)


def test_options_are_checked(train) -> None:
    said = train(options=["+image_checks.max_pixel=3"], status=1)
    assert "image_checks has no option max_pixel; it has max_pixels, max_aspect_ratio" in said
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
    options = {"+image_checks": False}
    cfg = run.load_run_config(str(tiny_seg_config), work_dir=str(tmp_path), cfg_options=options)
    runner = run.build_runner(cfg, [])
    loop = runner.build_train_loop(runner._train_loop)
    assert kinds(loop.dataloader.dataset.pipeline)[:2] == ["LoadImageFromFile", "LoadAnnotations"]


def test_a_dry_run_names_the_file(images: list[Path], train) -> None:
    for path in images:
        Image.fromarray(np.zeros((1, 500, 3), np.uint8)).save(path)
    assert "it is 500 × 1: one side is more than" in train("--dry-run", "1", status=1)


def test_lists_of_two_processes_become_one(tmp_path: Path) -> None:
    """So the limit is of both together: two each are allowed, three in all are not."""
    work_dir = tmp_path / "run"
    found = run_group(read_lists_together, 2, tmp_path / "all", work_dir, 0.03)
    assert found == [({"skipped": 3, "list": "unreadable_images.txt"}, "")] * 2
    assert [path.name for path in work_dir.iterdir()] == ["unreadable_images.txt"]
    assert list(read_list(work_dir / "unreadable_images.txt")) == ["0.jpg", "1.jpg", "common.jpg"]
    for info, text in run_group(read_lists_together, 2, tmp_path / "again", tmp_path / "stopped", 0.02):
        assert info is None and "3 of 100 images cannot be read, more than 2" in text
