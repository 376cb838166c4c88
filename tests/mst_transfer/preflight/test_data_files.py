"""Images that are missing, broken or of another size than their annotations say."""

import json

import numpy as np
import pytest
from mmcv import imread
from PIL import Image
from small_sets import coco_config, write_coco

from mst_transfer.preflight import images as preflight_images
from mst_transfer.preflight.check import check_datasets
from mst_transfer.preflight.data_files import image_size, missing_files


def test_missing_files_are_found_in_any_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "folder.png").mkdir()
    for name in ("x.png", "a/y.png", "a/b/z.png"):
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "x.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    there = [str(tmp_path / name) for name in ("x.png", "a/y.png", "a/b/z.png", "link.png", "a/../x.png")]
    gone = [str(tmp_path / name) for name in ("q.png", "a/x.png", "no/z.png", "folder.png", "broken.png")]
    assert missing_files([*there, *gone]) == gone


def test_another_size_is_refused(tmp_path):
    write_coco(tmp_path)
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(tmp_path / "train" / "1.png")
    with pytest.raises(ValueError, match="1 of 3 images that were looked at .*1.png is 16 × 8, not 8 × 8"):
        check_datasets(coco_config(tmp_path))


def test_broken_images_are_refused(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "train" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of 3 images that were looked at are broken: image .*1.png cannot be read"):
        check_datasets(coco_config(tmp_path))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_sizes_are_those_that_mmcv_reads(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / "turned.jpg")
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(path, exif=exif)
    height, width = imread(path).shape[:2]
    assert image_size(path) == (width, height) == ((8, 16) if orientation > 4 else (16, 8))


def test_exchanged_sides_get_a_hint(tmp_path):
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["images"][2]["width"] = 16
    path.write_text(json.dumps(content))
    Image.fromarray(np.zeros((16, 8, 3), np.uint8)).save(tmp_path / "train" / "2.png")
    with pytest.raises(ValueError, match="2.png is 8 × 16, not 16 × 8 .width and height exchanged, or the EXIF turn"):
        check_datasets(coco_config(tmp_path))


def test_a_sample_is_looked_at(tmp_path, monkeypatch):
    write_coco(tmp_path, num_images=9)
    looked = []
    monkeypatch.setattr(preflight_images, "MAX_IMAGES", 4)
    monkeypatch.setattr(preflight_images, "image_size", lambda path, _: looked.append(path) or (8, 8))
    check_datasets(coco_config(tmp_path))
    assert [path[-5] for path in looked] == ["0", "3", "6"]
