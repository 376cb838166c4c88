"""Annotations name files inside the folder of the images; a name that leads out of it is refused."""

import pytest
from small_sets import change_json, coco_config, seg_config, write_coco, write_masks

from mst_transfer.preflight.check import check_datasets
from mst_transfer.preflight.data_files import leaves_folder


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../b.png", "..", "./../x", "a/b/../../../c", "a\0b"]
)
def test_names_that_lead_out_are_refused(name, tmp_path):
    change_json(write_coco(tmp_path), lambda content: content["images"][1].update(file_name=name))
    with pytest.raises(ValueError, match=r"1 of 3 images .* lead out|1 of 3 images .* leads out of"):
        check_datasets(coco_config(tmp_path))


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "a/../b.png", "..a.png", "a..png", "...", "./a.png", "ä b.png"])
def test_names_inside_stay_allowed(name):
    assert not leaves_folder(name)


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
