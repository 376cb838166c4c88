"""Bad images in pre-training and in its evaluations: decoded right, or skipped, counted and named."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import bad_images
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from torch.utils.data import DataLoader

from mst_transfer.files.image_files import UnreadableImageError, shown_path
from mst_transfer.files.image_folder import find_images, read_image
from mst_transfer.probes.labelled_images import LabelledImages, central_view
from mst_transfer.runs.unreadable_images import (
    UnreadableImagesHook,
    append_to_list,
    read_list,
)
from mst_transfer.runs.workers import plain_message
from pretrain.data.dataset import MultiCropDataset
from pretrain.run.train import main

AsRoot = Callable[[Path], Path | str]
SMALL = dict(global_size=32, local_size=16, num_local_crops=1)
by_name = pytest.mark.parametrize("case", bad_images.EVERY, ids=lambda case: case.name)


@by_name
def test_every_image_is_decoded_right_or_refused(tmp_path: Path, case: bad_images.Case) -> None:
    path = case.make(tmp_path)
    if case.pixels is None:
        with pytest.raises(UnreadableImageError, match=case.reason):
            read_image(path)
        return
    for turned, expected in ((False, case.pixels), (True, case.pixels if case.turned is None else case.turned)):
        image = read_image(path, exif_orientation=turned)
        assert image.shape == expected.shape and image.dtype == np.uint8
        assert np.abs(image.astype(int) - expected).max() <= case.tolerance
        if turned and "16_bit" not in case.name:
            assert np.abs(image.astype(int) - bad_images.transposed_by_pil(path)).max() <= 2


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for case in bad_images.EVERY:
        case.make(folder)
    return folder


def test_a_folder_of_everything_makes_an_epoch(mixed: Path, as_root: AsRoot) -> None:
    """Nothing hangs, nothing is lost, and whoever loads, and from whatever, the samples are the same."""
    names = [case.file_name or case.name for case in bad_images.EVERY if case.is_listed]
    assert sorted(map(os.path.basename, find_images(mixed))) == sorted(names)
    dataset, files = MultiCropDataset(as_root(mixed), **SMALL), MultiCropDataset(mixed, **SMALL)
    keys = [(3, index) for index in range(len(files))]
    assert len(dataset) == len(files)
    alone = [dataset[key] for key in keys]
    loaded = list(DataLoader(dataset, batch_size=None, sampler=keys, num_workers=2))
    assert all(torch.equal(a["global_crops"], b["global_crops"]) for a, b in zip(alone, loaded, strict=True))
    expected = {case.file_name or case.name for case in bad_images.BROKEN if case.is_listed}
    assert {os.path.basename(files.paths[list(dataset.paths).index(name)]) for name in dataset.unreadable} == expected
    assert all(torch.equal(a["global_crops"], files[key]["global_crops"]) for a, key in zip(alone, keys, strict=True))


class _Runner(SimpleNamespace):
    """What the hook needs of a runner, for data sets of any size."""

    def __init__(self, work_dir: Path, dataset: MultiCropDataset, step: int = 0) -> None:
        super().__init__(
            work_dir=str(work_dir),
            epoch=0,
            iter=step,
            logger=logging.getLogger("test"),
            message_hub=MessageHub.get_instance(f"hub {work_dir}"),
            train_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)),
        )

    def step(self, hook: UnreadableImagesHook, index: int) -> None:
        """Loads a sample, as a worker does, and trains on it."""
        self.train_loop.dataloader.dataset[index]
        hook.after_train_iter(self, index)


def test_hook_names_the_files_once_and_goes_on_when_resumed(
    mixed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = MultiCropDataset(mixed, **SMALL)
    (tmp_path / "unreadable_images.txt").write_text("of an older run\treason\n")
    runner, hook = _Runner(tmp_path, dataset), UnreadableImagesHook(max_unreadable_share=1.0)
    hook.before_train(runner)
    with caplog.at_level(logging.INFO):
        for index in [*range(len(dataset)), *range(len(dataset))]:
            runner.step(hook, index)
        unsorted = read_list(tmp_path / "unreadable_images.txt")
        hook.after_train_epoch(runner)
        hook.after_train(runner)
    found = read_list(tmp_path / "unreadable_images.txt")
    listed = [case for case in bad_images.BROKEN if case.is_listed]
    assert len(found) == len(listed) and found == unsorted
    assert list(found) == sorted(found)
    for case in listed:
        assert "Cannot read" not in found[str(mixed / case.name)]
    assert "a pipe, not a file" in found[str(mixed / "pipe.jpg")]
    assert caplog.text.count("Another sample takes its place") == len(listed)
    assert runner.message_hub.get_info("unreadable_images")["skipped"] == len(listed)
    resumed, again = _Runner(tmp_path, dataset, step=5), UnreadableImagesHook(max_unreadable_share=1.0)
    again.before_train(resumed)
    again.after_train_epoch(resumed)
    assert read_list(tmp_path / "unreadable_images.txt") == found


def test_a_run_counts_names_and_stops(
    tiny_config: Path, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, as_root: AsRoot
) -> None:
    folder = shutil.copytree(photo_folder, tmp_path / "copy")
    images = sorted(folder.rglob("*.png"))
    for path in images[:3]:
        path.write_bytes(b"no image")
    words = [str(tiny_config), "--work-dir", str(tmp_path / "run"), "--cfg-options", "train_dataloader.num_workers=2"]
    root = as_root(folder)
    names = [str(path) if root == folder else MultiCropDataset(root).paths[i] for i, path in enumerate(images[:3])]
    assert main([*words, f"train_dataloader.dataset.data_root={root}"]) == 0
    found = read_list(tmp_path / "run" / "unreadable_images.txt")
    assert set(found) == set(names) and set(found.values()) == {"it is no image"}
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert "could not be read and were skipped: 3, named in" in log
    assert all(log.count(f"{name} cannot be read: it is no image") == 1 for name in names)
    for path in images:
        path.write_bytes(b"no image")
    words[2] = str(tmp_path / "other")
    assert main([*words, f"train_dataloader.dataset.data_root={as_root(folder)}"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("mst-pretrain: 100 files tried") and "Check that the data set is complete" in said


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_evaluation_leaves_out_no_image(tmp_path: Path, num_workers: int) -> None:
    (tmp_path / "cat").mkdir()
    for case in bad_images.GOOD[:3]:
        case.make(tmp_path / "cat")
    (tmp_path / "cat" / "x.png").write_bytes(b"no image")
    loader = DataLoader(LabelledImages(tmp_path, 16), batch_size=2, num_workers=num_workers)
    with pytest.raises(UnreadableImageError) as error:
        list(loader)
    text = plain_message(error.value)
    assert text.startswith(f"Cannot read image '{tmp_path}/cat/x.png': it is no image. A score must be of all images")


def test_extreme_proportions_take_little_memory_in_an_evaluation() -> None:
    line = next(case.pixels for case in bad_images.GOOD if case.name == "line.png")
    assert line is not None
    view = central_view(line, 224)
    assert view.shape == (224, 224, 3)
    assert view.mean() == pytest.approx(line[:, 4992:5008].mean(), abs=12)
    ordinary = np.ascontiguousarray(np.tile(bad_images.PHOTO, (1, 10, 1)))  # 15 times as wide as high: as it was
    assert central_view(ordinary, 16).shape == (16, 16, 3)


def test_lists_of_work_dirs_are_json_free_text(tmp_path: Path) -> None:
    """A name with a line break stays one line."""
    dataset_file = tmp_path / "unreadable_images.txt"
    append_to_list(dataset_file, shown_path(os.fsdecode(b"a\nb\xe9.jpg")), "first\nsecond\t")
    assert dataset_file.read_bytes() == b"a\\nb\\xe9.jpg\tfirst second\n"
    assert json.dumps(read_list(dataset_file))
