"""Sample data on disk: layout, exact annotations, and what is asked for twice is made once."""

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mst_transfer.cli.main import main
from mst_transfer.datasets.sample.scenes import CLASSES, OBJECT_CLASSES, draw_scene, scene_generator
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data

REQUEST = SampleDataRequest(seed=3, num_train=6, num_val=3, num_photos=12, size=96)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    assert make_sample_data(folder, REQUEST)
    return folder


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_layout(sample):
    expected = ["sample_data.json"] + [f"photos/{i % 10:02d}/{i:06d}.jpg" for i in range(12)]
    for split, count in (("train", 6), ("val", 3)):
        expected.append(f"coco/annotations/instances_{split}.json")
        for i in range(count):
            expected.append(f"coco/{split}/{i:06d}.jpg")
            stem = f"{split}/scene/scene_{i:06d}"
            expected.append(f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png")
            expected.append(f"cityscapes/gtFine/{stem}_gtFine_labelTrainIds.png")
    assert files(sample) == sorted(expected)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_annotations_by_brute_force(sample, split):
    coco = COCO(sample / "coco" / "annotations" / f"instances_{split}.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(OBJECT_CLASSES)
    assert len(set(coco.getAnnIds())) == len(coco.dataset["annotations"])
    for image in coco.dataset["images"]:
        pixels = cv2.imread(str(sample / "coco" / split / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        drawn = draw_scene(scene_generator(3, f"coco/{split}", image["id"] - 1), 96)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(drawn.labels)
        for annotation, mask, label in zip(annotations, drawn.masks, drawn.labels, strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["category_id"] == label + 1 and annotation["iscrowd"] == 0
            rows, columns = np.nonzero(mask)
            left, top = columns.min(), rows.min()
            assert annotation["bbox"] == [left, top, columns.max() - left + 1, rows.max() - top + 1]
            assert annotation["area"] == len(rows)


@pytest.mark.parametrize("split", ["train", "val"])
def test_cityscapes_pictures_are_the_scenes(sample, split):
    root = sample / "cityscapes"
    for index, path in enumerate(sorted((root / "leftImg8bit" / split).rglob("*.png"))):
        drawn = draw_scene(scene_generator(3, f"cityscapes/{split}", index), 96)
        assert np.array_equal(cv2.imread(str(path))[..., ::-1], drawn.image)
        name = path.name.replace("_leftImg8bit", "_gtFine_labelTrainIds")
        labels = cv2.imread(str(root / "gtFine" / split / "scene" / name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(labels, drawn.semantic)
        assert labels.max() < len(CLASSES)


def test_more_images_keep_the_ones_that_are_there(sample, tmp_path):
    make_sample_data(tmp_path, SampleDataRequest(seed=3, num_train=7, num_val=3, num_photos=13, size=96))
    for name in set(files(sample)) - {"sample_data.json", "coco/annotations/instances_train.json"}:
        assert (tmp_path / name).read_bytes() == (sample / name).read_bytes(), name
    before, after = (
        json.loads((folder / "coco/annotations/instances_train.json").read_text())["annotations"]
        for folder in (sample, tmp_path)
    )
    assert after[: len(before)] == before


def test_asked_for_again_nothing_is_drawn_and_other_requests_replace(tmp_path, capsys):
    asked = ["sample-data", str(tmp_path), "--num-train", "1", "--num-val", "1", "--num-photos", "2", "--size", "32"]
    assert main(asked) == 0
    assert "drew 2 photos, 2 x 1 train, 2 x 1 val" in capsys.readouterr().out
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    assert main(asked) == 0
    assert "are there already" in capsys.readouterr().out
    assert before == {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    assert main([*asked, "--seed", "5"]) == 0
    assert files(tmp_path) == sorted(before)
    assert json.loads((tmp_path / "sample_data.json").read_text())["seed"] == 5


def test_an_interrupted_exchange_is_made_good(tmp_path):
    request = SampleDataRequest(num_train=1, num_val=1, num_photos=1, size=32)
    make_sample_data(tmp_path, request)
    stamp = tmp_path / "sample_data.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "incomplete": True}))
    assert make_sample_data(tmp_path, request)
    assert "incomplete" not in json.loads(stamp.read_text())


def test_files_and_folders_of_others_are_left_alone(tmp_path, capsys):
    holiday = tmp_path / "photos" / "holiday.jpg"
    holiday.parent.mkdir()
    holiday.write_bytes(b"mine")
    assert main(["sample-data", str(tmp_path)]) == 1
    assert "left alone" in capsys.readouterr().err
    assert main(["sample-data", str(holiday)]) == 1
    assert "is a file" in capsys.readouterr().err
    assert holiday.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-train", "0"], "num_train must be at least 1, got 0"),
        (["--size", "7"], "32 to 1024 pixels, got 7"),
        (["--seed", "-1"], "seed must be in [0, 2**64), got -1"),
    ],
)
def test_wrong_requests_are_refused(tmp_path, capsys, options, message):
    assert main(["sample-data", str(tmp_path), *options]) == 1
    assert message in capsys.readouterr().err
