"""Images that are missing, broken, of another size than their annotations say, or outside the folder."""

import numpy as np
import pytest
from mmcv import imread
from PIL import Image
from small_sets import change_json, coco_config, said, seg_config, write_coco, write_masks

from mst_transfer.preflight import data_files
from mst_transfer.preflight.check import check_datasets
from mst_transfer.preflight.data_files import image_size, leaves_folder, missing_files


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


def test_another_size_and_broken_images_are_refused(tmp_path):
    path = write_coco(tmp_path)
    change_json(path, lambda content: content["images"][2].update(width=16))
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(tmp_path / "train" / "1.png")
    Image.fromarray(np.zeros((16, 8, 3), np.uint8)).save(tmp_path / "train" / "2.png")
    (tmp_path / "train" / "0.png").write_bytes(b"no image")
    (broken, sizes), _ = said(coco_config(tmp_path))
    assert f"1 of 3 images that were looked at are broken: image {tmp_path}/train/0.png cannot be read" in broken
    assert "2 of 3 images that were looked at are of another size" in sizes and "1.png is 16 × 8, not 8 × 8;" in sizes
    assert "2.png is 8 × 16, not 16 × 8 (width and height exchanged, or the EXIF turn" in sizes


@pytest.mark.parametrize("ending", ["jpg", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_sizes_are_those_that_mmcv_reads(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / f"turned.{ending}")
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(path, exif=exif)
    height, width = imread(path).shape[:2]
    assert image_size(path) == (width, height) == ((8, 16) if orientation > 4 else (16, 8))


def test_a_sample_is_looked_at(tmp_path, monkeypatch):
    write_coco(tmp_path, num_images=9)
    looked = []
    monkeypatch.setattr(data_files, "MAX_IMAGES", 4)
    monkeypatch.setattr(data_files, "image_size", lambda path, _: looked.append(path) or (8, 8))
    assert said(coco_config(tmp_path)) == ([], [])
    assert [path[-5] for path in looked] == ["0", "3", "6"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../b.png", "..", "./../x", "a/b/../../../c", "a\0b"]
)
def test_names_that_lead_out_are_refused(name, tmp_path):
    change_json(write_coco(tmp_path), lambda content: content["images"][1].update(file_name=name))
    with pytest.raises(ValueError, match=r"1 of 3 images .* lead out|1 of 3 images .* leads out of"):
        check_datasets(coco_config(tmp_path))


def test_names_inside_stay_allowed():
    names = ["a.png", "a/b.png", "a/../b.png", "..a.png", "a..png", "...", "./a.png", "ä b.png"]
    assert not any(map(leaves_folder, names))


def test_links_that_the_user_made_are_followed(tmp_path):
    """A data set is often linked into place: what its annotations say is not trusted, the folder is."""
    write_coco(tmp_path / "elsewhere")
    write_coco(tmp_path / "here")
    for file in (tmp_path / "here" / "train").iterdir():
        file.unlink()
        file.symlink_to(tmp_path / "elsewhere" / "train" / file.name)
    check_datasets(coco_config(tmp_path / "here"))


def test_lists_of_masks_that_lead_out_are_refused(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "train.txt").write_text("../../secret\n")
    with pytest.raises(ValueError, match=r"1 of 1 names in .*train\.txt lead out of"):
        check_datasets(seg_config(tmp_path, ann_file="train.txt"))
