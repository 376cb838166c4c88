"""Segmentation masks that do not fit images, classes or heads are refused with the way out."""

import re

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.registry import DATASETS
from small_sets import said, save_mask, seg_config, write_masks

from mst_transfer.preflight import segmentation
from mst_transfer.preflight.check import check_datasets
from mst_transfer.preflight.evaluators import check_evaluator
from mst_transfer.preflight.segmentation_masks import list_pairs, value_map

ONE = "gtFine/train/town/1_gtFine_labelTrainIds.png"
LABEL_IDS = dict(seg_map_suffix="_gtFine_labelIds.png", metainfo={})
# how the masks are written, options of the dataset, what is said
FAULTS = {
    "value beyond the classes": (
        lambda root: save_mask(root, 1, [0, 7]),
        {},
        f"{ONE} holds 7; allowed are 0 to 1 for the 2 classes and 255 .* 0: 50.0 %, 7: 50.0 %",
    ),
    "raw Cityscapes": (
        lambda root: write_masks(root, values=(7, 26, 33)),
        dict(num_classes=19, type="CityscapesDataset", metainfo={}),
        "holds 26, 33.*look like Cityscapes labelIds",
    ),
    "raw Cityscapes by name": (  # values up to 18 would pass for train ids: road, 7, for a traffic sign
        lambda root: write_masks(root, values=(7, 8, 11), mask_suffix="_gtFine_labelIds.png"),
        dict(num_classes=19, type="CityscapesDataset", **LABEL_IDS),
        "they are label ids: road is 7 .*Set type='mst_transfer.CityscapesDataset'",
    ),
    "all ignored": (lambda root: write_masks(root, values=(255,)), {}, "every pixel .* is 255"),
    "mask missing": (lambda root: (root / ONE).unlink(), {}, f"1 of 3 images have no mask, e.g. .*{ONE}"),
    "image and mask of a list missing": (
        lambda root: (root / "list.txt").write_text("town/0\ntown/8\n"),
        dict(ann_file="list.txt"),
        "(?s)1 of 2 images have no image.*1 of 2 images have no mask",
    ),
    "another image suffix": (
        lambda root: None,
        dict(img_suffix="_leftImg8bit.jpg"),
        "no file below .* ends in '_leftImg8bit.jpg' .found: 3 × .png.. Set img_suff",
    ),
    "classes of one's own": (
        lambda root: None,
        dict(type="CityscapesDataset"),
        "CityscapesDataset has no class 'a', 'b'; .*type='BaseSegDataset'",
    ),
    "several": (
        lambda root: (write_masks(root, values=(0, 9)), (root / ONE).write_bytes(b"no image")),
        {},
        f"(?s)1 of 3 masks that were read are broken: mask .*{ONE} cannot be read.*holds 9; .*And 1 more of 3 masks",
    ),
    "classes from one": (
        lambda root: write_masks(root, values=(0, 1, 2)),
        {},
        "holds 2; allowed are 0 to 1 .*set reduce_zero_label=True",
    ),
    "reduced in one place": (
        lambda root: None,
        dict(pipeline=[dict(type="LoadAnnotations", reduce_zero_label=True)]),
        "LoadAnnotations has reduce_zero_label=True, the dataset False",
    ),
    "another ignore_index": (
        lambda root: None,
        dict(ignore_index=0),
        "(?s)ignore_index=0, but model.decode_head.ignore_index=255.*auxiliary_head.0.*seg_pad_val=255",
    ),
}


@pytest.mark.parametrize(("spoil", "options", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_said(tmp_path, spoil, options, message):
    write_masks(tmp_path)
    spoil(tmp_path)
    stops, _ = said(seg_config(tmp_path, **options))
    assert re.search(message, "\n".join(stops)), stops


def test_a_metric_must_leave_out_what_the_dataset_leaves_out(tmp_path):
    cfg = seg_config(tmp_path, ignore_index=250)
    cfg.val_dataloader, cfg.val_evaluator = cfg.train_dataloader, [dict(type="mmseg.IoUMetric")]
    (finding,) = check_evaluator(cfg, "val_dataloader")
    assert finding.stops and "have 250" in finding.text and "Set val_evaluator.0.ignore_index=250" in finding.text
    cfg.val_evaluator[0].ignore_index = 250
    assert not [*check_evaluator(cfg, "val_dataloader")]


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ((0, 1, 255), {}),
        ((0, 1, 2), dict(reduce_zero_label=True)),
        ((0, 18, 255), dict(type="CityscapesDataset", metainfo=dict(classes=("road", "bicycle")))),  # two of 19
    ],
)
def test_good_masks_pass(tmp_path, values, options):
    write_masks(tmp_path, values=values)
    check_datasets(seg_config(tmp_path, **options))


def test_pairs_are_those_of_mmseg(tmp_path):
    write_masks(tmp_path)
    options = dict(seg_config(tmp_path).train_dataloader.dataset)
    options.pop("type")
    dataset = BaseSegDataset(pipeline=[], **options)
    theirs = [(info["img_path"], info["seg_map_path"]) for info in map(dataset.get_data_info, range(len(dataset)))]
    assert list_pairs("here", options, BaseSegDataset) == theirs


def test_number_of_masks_read_is_bounded(tmp_path, monkeypatch):
    write_masks(tmp_path, count=9)
    read = []
    monkeypatch.setattr(segmentation, "MAX_MASKS", 4)
    monkeypatch.setattr(segmentation, "count_values", lambda path, _: read.append(path) or ({0: 64}, (8, 8)))
    check_datasets(seg_config(tmp_path))
    assert len(read) == 3


def test_ade20k_reduces_the_zero_label_by_itself(tmp_path):
    """Its class does so by default; mmseg's own reading of the mask is the oracle for what the values become."""
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
    values = [*range(20 if reduced else 19), 255]
    write_masks(tmp_path, values=values, count=1)
    prefix = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
    options = dict(type="CityscapesDataset", data_root=str(tmp_path), data_prefix=prefix, reduce_zero_label=reduced)
    if picked:
        options["metainfo"] = dict(classes=picked)
    init_default_scope("mmseg")
    sample = DATASETS.build(dict(options, pipeline=[dict(type="LoadAnnotations")]))[0]
    classes = picked or CityscapesDataset.METAINFO["classes"]
    mapping = value_map(options, CityscapesDataset, classes, 255)
    expected = np.resize([mapping[value] for value in values], (8, 8))
    np.testing.assert_array_equal(sample["gt_seg_map"], expected)


@pytest.mark.parametrize("classes", [None, ("car", "road")])
def test_raw_cityscapes_is_found_and_said(tmp_path, classes):
    write_masks(tmp_path, values=(7, 26, 33, 0), mask_suffix="_gtFine_labelIds.png")
    options = dict(type="mst_transfer.CityscapesDataset", metainfo=dict(classes=classes) if classes else {})
    cfg = seg_config(tmp_path, num_classes=len(classes) if classes else 19, **options)
    (summary,) = check_datasets(cfg)
    assert "train ids are made from labelIds on the fly (3 of 3 masks)" in summary.facts
    present = {summary.classes[index] for index, share in enumerate(summary.counts) if share}
    assert present == ({"road", "car"} if classes else {"road", "car", "bicycle"})
    asked = dict(options, seg_map_suffix="_gtFine_labelIds.png")
    assert check_datasets(seg_config(tmp_path, len(summary.classes), **asked))[0].counts == summary.counts
    save_mask(tmp_path, 0, (34,), mask_suffix="_gtFine_labelIds.png")
    with pytest.raises(ValueError, match="holds 34; allowed are Cityscapes' label ids 0 to 33"):
        check_datasets(cfg)
