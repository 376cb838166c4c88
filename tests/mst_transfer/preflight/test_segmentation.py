"""Segmentation masks that do not fit images, classes or heads are refused with the way out."""

import numpy as np
import pytest
from PIL import Image
from small_sets import save_mask, seg_config, write_masks

from mst_transfer.preflight import mask_values
from mst_transfer.preflight import masks as preflight_masks
from mst_transfer.preflight.check import check_datasets


def test_good_masks_pass(tmp_path):
    write_masks(tmp_path, values=(0, 1, 255))
    check_datasets(seg_config(tmp_path))


def test_values_outside_the_classes_are_refused_by_file_and_value(tmp_path):
    write_masks(tmp_path)
    wrong = tmp_path / "gtFine/train/town/1_gtFine_labelTrainIds.png"
    Image.fromarray(np.resize(np.array([0, 7], np.uint8), (8, 8))).save(wrong)
    with pytest.raises(ValueError) as error:
        check_datasets(seg_config(tmp_path))
    text = str(error.value)
    assert f"mask {wrong} holds 7; allowed are 0 to 1 for the 2 classes and 255" in text
    assert "0: 50.0 %, 7: 50.0 %" in text


def test_raw_cityscapes_ids_are_recognised(tmp_path):
    write_masks(tmp_path, values=(7, 26, 33))
    cfg = seg_config(tmp_path, num_classes=19, type="CityscapesDataset")
    del cfg.train_dataloader.dataset["metainfo"]
    with pytest.raises(ValueError, match="holds 26, 33.*look like Cityscapes labelIds"):
        check_datasets(cfg)


def test_picked_classes_follow_the_full_list(tmp_path):
    """CityscapesDataset with 2 of its 19 classes: files keep train ids 0 to 18, which mmseg maps."""
    write_masks(tmp_path, values=(0, 18, 255))
    cfg = seg_config(tmp_path, type="CityscapesDataset", metainfo=dict(classes=("road", "bicycle")))
    check_datasets(cfg)


def test_colour_masks_are_refused(tmp_path):
    write_masks(tmp_path)
    path = tmp_path / "gtFine/train/town/0_gtFine_labelTrainIds.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match="3 channels: colours instead of class ids"):
        check_datasets(seg_config(tmp_path))


def test_unreadable_mask_is_named(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "gtFine/train/town/2_gtFine_labelTrainIds.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="2_gtFine_labelTrainIds.png cannot be read"):
        check_datasets(seg_config(tmp_path))


def test_masks_that_ignore_everything_are_refused(tmp_path):
    write_masks(tmp_path, values=(255,))
    with pytest.raises(ValueError, match="every pixel .* is 255"):
        check_datasets(seg_config(tmp_path))


def test_missing_masks_are_named(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "gtFine/train/town/2_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 images have no mask, e.g. .*2_gtFine_labelTrainIds.png"):
        check_datasets(seg_config(tmp_path))


def test_other_image_suffix_is_named(tmp_path):
    write_masks(tmp_path, suffix="_leftImg8bit.jpg")
    with pytest.raises(ValueError, match="no file below .* ends in '_leftImg8bit.png' .found: 3 × .jpg.. Set img_suff"):
        check_datasets(seg_config(tmp_path))


def test_pairs_are_those_of_mmseg(tmp_path):
    from mmseg.datasets import BaseSegDataset

    write_masks(tmp_path)
    options = dict(seg_config(tmp_path).train_dataloader.dataset)
    options.pop("type")
    dataset = BaseSegDataset(pipeline=[], **options)
    theirs = [(info["img_path"], info["seg_map_path"]) for info in map(dataset.get_data_info, range(len(dataset)))]
    assert mask_values.list_pairs("here", options, BaseSegDataset) == theirs


def test_number_of_masks_read_is_bounded(tmp_path, monkeypatch):
    write_masks(tmp_path, count=9)
    read = []
    monkeypatch.setattr(preflight_masks, "MAX_MASKS", 4)
    monkeypatch.setattr(preflight_masks, "count_values", lambda path, _: read.append(path) or ({0: 64}, (8, 8)))
    check_datasets(seg_config(tmp_path))
    assert len(read) == 3


def test_classes_that_the_dataset_does_not_have_are_refused(tmp_path):
    write_masks(tmp_path)
    with pytest.raises(ValueError, match="CityscapesDataset has no class 'a', 'b'; .*type='BaseSegDataset'"):
        check_datasets(seg_config(tmp_path, type="CityscapesDataset"))


def test_masks_of_another_size_are_refused(tmp_path):
    write_masks(tmp_path)
    path = save_mask(tmp_path, 1, (0, 1), size=(8, 16))
    with pytest.raises(ValueError, match=f"1 of 3 masks .* another size .*: {path} is 16 × 8, its image 8 × 8"):
        check_datasets(seg_config(tmp_path))


def test_several_bad_masks_are_counted(tmp_path):
    write_masks(tmp_path, values=(0, 9))
    (tmp_path / "gtFine/train/town/0_gtFine_labelTrainIds.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match="(?s)1 of 3 masks that were read are broken.*holds 9; .*And 1 more of 3 masks"
    ):
        check_datasets(seg_config(tmp_path))


def test_missing_images_of_a_list_are_named(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "list.txt").write_text("town/0\ntown/8\n")
    with pytest.raises(FileNotFoundError, match="(?s)1 of 2 images have no image.*1 of 2 images have no mask"):
        check_datasets(seg_config(tmp_path, ann_file="list.txt"))


def test_masks_that_begin_at_one_are_told_of_reduce_zero_label(tmp_path):
    write_masks(tmp_path, values=(0, 1, 2))
    with pytest.raises(ValueError, match="holds 2; allowed are 0 to 1 .*set reduce_zero_label=True"):
        check_datasets(seg_config(tmp_path))
    check_datasets(seg_config(tmp_path, reduce_zero_label=True))


def test_ade20k_reduces_the_zero_label_by_itself(tmp_path):
    """Its class does so by default; mmseg's own reading of the mask is the oracle for what the values become."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS

    write_masks(tmp_path, values=(0, 1, 150, 255))
    cfg = seg_config(tmp_path, num_classes=150, type="ADE20KDataset")
    del cfg.train_dataloader.dataset["metainfo"]
    (summary,) = check_datasets(cfg)
    init_default_scope("mmseg")
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[dict(type="LoadAnnotations")]))
    values, counts = np.unique(dataset[0]["gt_seg_map"], return_counts=True)
    assert {index: share for index, share in enumerate(summary.counts) if share} == {0: 25.0, 149: 25.0}
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 16, 149: 16, 255: 32}
    save_mask(tmp_path, 0, (151,))
    with pytest.raises(ValueError, match="holds 151; allowed are 0 to 150 for the 150 classes"):
        check_datasets(cfg)


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("picked", [("car", "road"), None])
def test_values_become_what_mmseg_makes_of_them(tmp_path, reduced, picked):
    from mmengine.registry import init_default_scope
    from mmseg.datasets import CityscapesDataset
    from mmseg.registry import DATASETS

    values = [*range(20 if reduced else 19), 255]
    write_masks(tmp_path, values=values, count=1)
    options = dict(
        type="CityscapesDataset",
        data_root=str(tmp_path),
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        reduce_zero_label=reduced,
    )
    if picked:
        options["metainfo"] = dict(classes=picked)
    init_default_scope("mmseg")
    sample = DATASETS.build(dict(options, pipeline=[dict(type="LoadAnnotations")]))[0]
    classes = picked or CityscapesDataset.METAINFO["classes"]
    mapping = mask_values.value_map(options, CityscapesDataset, classes, 255)
    expected = np.resize([mapping[value] for value in values], (8, 8))
    np.testing.assert_array_equal(sample["gt_seg_map"], expected)


def test_settings_that_contradict_each_other_are_refused(tmp_path):
    write_masks(tmp_path)
    loading = [dict(type="LoadAnnotations", reduce_zero_label=True)]
    with pytest.raises(ValueError, match="LoadAnnotations has reduce_zero_label=True, the dataset False"):
        check_datasets(seg_config(tmp_path, pipeline=loading))
    with pytest.raises(
        ValueError, match="(?s)ignore_index=0, but model.decode_head.ignore_index=255.*auxiliary_head.0"
    ):
        check_datasets(seg_config(tmp_path, ignore_index=0))


def test_label_ids_taken_for_train_ids_are_refused_by_name(tmp_path):
    """Values up to 18 would pass for train ids: road, 7, for a traffic sign."""
    write_masks(tmp_path, values=(7, 8, 11), mask_suffix="_gtFine_labelIds.png")
    options = dict(num_classes=19, seg_map_suffix="_gtFine_labelIds.png", metainfo={})
    with pytest.raises(ValueError, match="they are label ids: road is 7 .*Set type='mst_transfer.CityscapesDataset'"):
        check_datasets(seg_config(tmp_path, type="CityscapesDataset", **options))
    (summary,) = check_datasets(seg_config(tmp_path, type="mst_transfer.CityscapesDataset", **options))
    assert [index for index, share in enumerate(summary.counts) if share] == [0, 1, 2]


@pytest.mark.parametrize("classes", [None, ("car", "road")])
def test_raw_cityscapes_is_found_and_said(tmp_path, classes):
    write_masks(tmp_path, values=(7, 26, 33, 0), mask_suffix="_gtFine_labelIds.png")
    options = dict(type="mst_transfer.CityscapesDataset", metainfo=dict(classes=classes) if classes else {})
    cfg = seg_config(tmp_path, num_classes=len(classes) if classes else 19, **options)
    (summary,) = check_datasets(cfg)
    assert "train ids are made from labelIds on the fly (3 of 3 masks)" in summary.facts
    present = {summary.classes[index] for index, share in enumerate(summary.counts) if share}
    assert present == ({"road", "car"} if classes else {"road", "car", "bicycle"})
    save_mask(tmp_path, 0, (34,), mask_suffix="_gtFine_labelIds.png")
    with pytest.raises(ValueError, match="holds 34; allowed are Cityscapes' label ids 0 to 33"):
        check_datasets(cfg)
