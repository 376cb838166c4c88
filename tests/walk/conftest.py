"""Data of true sizes, and a record of the stages that each recipe passed."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import true_sizes

import mst_transfer  # noqa: F401 - before mmdet: it stands in for mmcv's compiled operators


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are the walk's."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.walk)


@pytest.fixture(scope="session")
def walk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of a walk."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "walk"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def data_root(walk_folder: Path) -> Path:
    """imagenet/ coco/ cityscapes/ ade/ and the small sets, made once."""
    from filelock import FileLock

    root = walk_folder / "data"
    with FileLock(f"{root}.lock"):
        if not (root / "made").is_file():
            make_all(root)
            (root / "made").touch()
    return root


def make_all(root: Path) -> None:
    """Few images of each set, at their true sizes."""
    from mmdet.datasets import CocoDataset

    gaps = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    numbers = [number for number in range(1, 91) if number not in gaps]
    coco = dict(zip(numbers, CocoDataset.METAINFO["classes"], strict=True))
    sizes = [(480, 640), (640, 480), (375, 500), (427, 640)]
    folders = {
        "train2017": ("annotations/instances_train2017.json", sizes),
        "val2017": ("annotations/instances_val2017.json", sizes[:3]),
    }
    true_sizes.make_coco(root / "coco", folders, coco)
    small = [(240, 320), (320, 240), (213, 320)] * 6
    folders = {
        "train": ("annotations/instances_train.json", small),
        "val": ("annotations/instances_val.json", small[:5]),
    }
    true_sizes.make_coco(root / "coco_mini", folders, coco)
    shapes = dict(enumerate(("flag", "quilt", "beetle", "tent", "net", "cow"), 1))
    folders = {name: (file, [(96, 96)] * len(sizes)) for name, (file, sizes) in folders.items()}
    true_sizes.make_coco(root / "sample" / "coco", folders, shapes)

    city, ade = (1024, 2048), [(512, 683), (683, 512), (487, 731)]
    make = true_sizes.make_segmentation
    make(root, "cityscapes", dict(train=[city] * 4, val=[city] * 2), "cityscapes_as_downloaded")
    make(root, "ade20k", dict(train=[*ade, (512, 683)], val=ade))
    make(root, "camvid", dict(train=[(360, 480)] * 8, val=[(360, 480)] * 3))
    make(root, "sample", dict(train=[(96, 96)] * 8, val=[(96, 96), (101, 133)]))

    photographs = [(375, 500), (500, 375), (480, 640), (256, 256), (333, 500)]
    true_sizes.make_photographs(root / "imagenet", 32, photographs, ("train",))
    true_sizes.make_photographs(root / "imagenet", 16, photographs, ("val",))
    true_sizes.make_photographs(root / "photos", 32, [(96, 96)], ("train", "val"))
    true_sizes.make_photographs(root / "sample" / "photos", 32, [(96, 96)], ("",))


@pytest.fixture(autouse=True)
def at_the_desk(walk_folder: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recipes look for data below MST_DATA_ROOT and for backbones in work_dirs/ of the current folder."""
    monkeypatch.setenv("MST_DATA_ROOT", str(data_root))
    monkeypatch.chdir(walk_folder)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # mmengine's loggers outlive a test's captured output
    torch.set_num_threads(1)
    yield


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Notes that a stage of this test's recipe is done."""
    return lambda stage: request.node.user_properties.append(("stage", stage))
