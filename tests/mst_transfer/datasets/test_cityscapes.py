"""Cityscapes' raw masks give what its prepared masks give.

The oracles: the table of ``cityscapesscripts/helpers/labels.py``, typed here name by name, and mmseg's own dataset
on prepared masks.
"""

from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.datasets import CityscapesDataset as MmsegCityscapesDataset
from mmseg.registry import DATASETS
from PIL import Image

from mst_transfer.datasets.cityscapes_ids import TRAIN_ID_OF, choose_masks

# names in the order of their ids, and their train ids
NAMES = (
    "unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road, sidewalk, parking, "
    "rail track, building, wall, fence, guard rail, bridge, tunnel, pole, polegroup, traffic light, traffic sign, "
    "vegetation, terrain, sky, person, rider, car, truck, bus, caravan, trailer, train, motorcycle, bicycle"
).split(", ")
TRAIN_IDS = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, *range(6, 16), 255, 255, 16, 17, 18]
CLASSES = MmsegCityscapesDataset.METAINFO["classes"]
IDS = np.arange(34, dtype=np.uint8).reshape(2, 17)
PIPELINE = [dict(type="LoadAnnotations")]


def write(root: Path, name: str, label_ids: bool, train_ids: bool) -> None:
    """One image with every label id; its prepared mask is made with the table above."""
    images, masks = root / "leftImg8bit/train/town", root / "gtFine/train/town"
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*IDS.shape, 3), np.uint8)).save(images / f"{name}_leftImg8bit.png")
    if label_ids:
        Image.fromarray(IDS).save(masks / f"{name}_gtFine_labelIds.png")
    if train_ids:
        Image.fromarray(np.array(TRAIN_IDS, np.uint8)[IDS]).save(masks / f"{name}_gtFine_labelTrainIds.png")


def build(root: Path, kind: str, **options):
    init_default_scope("mmseg")
    prefix = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
    return DATASETS.build(dict(type=kind, data_root=str(root), data_prefix=prefix, pipeline=PIPELINE) | options)


def test_the_table_is_the_published_one() -> None:
    assert dict(enumerate(TRAIN_IDS)) == TRAIN_ID_OF
    assert tuple(NAMES[TRAIN_IDS.index(index)] for index in range(19)) == CLASSES


@pytest.mark.parametrize("classes", [None, ("road", "bicycle", "train")])
def test_raw_masks_equal_prepared_ones(tmp_path: Path, classes) -> None:
    """Also where the dataset picks some classes; mmseg's dataset on prepared masks is the oracle."""
    options = dict(metainfo=dict(classes=classes)) if classes else {}
    write(tmp_path / "raw", "a", label_ids=True, train_ids=False)
    write(tmp_path / "prepared", "a", label_ids=False, train_ids=True)
    raw = build(tmp_path / "raw", "mst_transfer.CityscapesDataset", **options)
    prepared = build(tmp_path / "prepared", "CityscapesDataset", **options)
    assert raw.metainfo["classes"] == prepared.metainfo["classes"]
    np.testing.assert_array_equal(raw[0]["gt_seg_map"], prepared[0]["gt_seg_map"])
    assert len(np.unique(raw[0]["gt_seg_map"])) == (4 if classes else 20)


def test_each_image_takes_what_it_has(tmp_path: Path) -> None:
    write(tmp_path, "a", label_ids=True, train_ids=True)
    write(tmp_path, "b", label_ids=True, train_ids=False)
    dataset = build(tmp_path, "mst_transfer.CityscapesDataset")
    endings = [dataset.get_data_info(index)["seg_map_path"].rpartition("_")[2] for index in range(2)]
    assert endings == ["labelTrainIds.png", "labelIds.png"]
    np.testing.assert_array_equal(dataset[0]["gt_seg_map"], dataset[1]["gt_seg_map"])
    asked = build(tmp_path, "mst_transfer.CityscapesDataset", seg_map_suffix="_gtFine_labelIds.png")
    assert asked.get_data_info(0)["seg_map_path"].endswith("_labelIds.png")
    np.testing.assert_array_equal(asked[0]["gt_seg_map"], dataset[0]["gt_seg_map"])


def test_without_either_file_the_prepared_one_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "x_gtFine_labelTrainIds.png")
    assert choose_masks([path, "other.png"]) == [(path, False), ("other.png", False)]
