"""Polygons and run lengths that fail, or that mmdet drops silently, are told apart."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from small_sets import SQUARE, annotation, coco_config, write_coco

from mst_transfer.preflight import coco_segmentations
from mst_transfer.preflight.dataset_checks import inspect_datasets

LOADING = [dict(type="LoadAnnotations", with_bbox=True, with_mask=True)]


def look(root, segmentation, scored=False):
    """Texts of what stops, and of what is noted."""
    path = write_coco(root, annotations=[annotation(1), annotation(2, segmentation=segmentation)])
    cfg = coco_config(root, pipeline=LOADING)
    loaders = ["train_dataloader"]
    if scored:
        cfg.val_dataloader, loaders = cfg.train_dataloader, ["val_dataloader"]
        cfg.val_evaluator = dict(type="CocoMetric", metric=["segm"], ann_file=str(path))
    findings, _ = inspect_datasets(cfg, loaders)
    return [one.text for one in findings if one.stops], [one.text for one in findings if not one.stops]


def encoded(height=8, width=8):
    value = coco_mask.encode(np.asfortranarray(np.ones((height, width), np.uint8)))
    return dict(size=[height, width], counts=value["counts"].decode())


@pytest.mark.parametrize(
    "segmentation", [SQUARE, [*SQUARE, [1, 1, 2, 2, 3, 1]], encoded(), dict(size=[8, 8], counts=[10, 54])]
)
def test_sound_masks_pass(tmp_path, segmentation):
    assert look(tmp_path, segmentation) == ([], [])


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([1, 1, 5, 1, 5, 5], "id 2) whose segmentation is not a list of polygons"),
        ("text", "whose segmentation is not a list of polygons"),
        (dict(counts=[64]), "whose segmentation is not a list of polygons"),
        ([[1, 1, 5, None, 5, 5]], "polygons hold something else than finite numbers"),
        ([[1, 1, 5, float("inf"), 5, 5]], "polygons hold something else than finite numbers"),
        (encoded(8, 9), "size [8, 9], its image [height, width] [8.0, 8.0]"),
        (dict(size=[8, 8], counts=[10, 10]), "do not add up to height × width"),
        (dict(size=[8, 8], counts=[70, -6]), "do not add up to height × width"),
    ],
)
def test_masks_that_would_fail_are_refused(tmp_path, segmentation, message):
    stops, _ = look(tmp_path, segmentation)
    assert len(stops) == 1 and message in stops[0] and "1 of 2 annotations (id 2" in stops[0]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, 5]], "does not learn from 1 of 2 annotations (id 2)"),
        ([[1, 1, 5, 5, 5]], "does not learn from 1 of 2 annotations (id 2)"),
        ([[1, 1], *SQUARE], "drops polygons of 1 of 2 annotations (id 2)"),
        ([[1, 1, 12, 1, 5, 5]], "polygons of 1 of 2 annotations (id 2) reach more than 1 px"),
        ([*SQUARE, [1, 1, 5, 1, 5, -4]], "polygons of 1 of 2 annotations (id 2) reach more than 1 px"),
    ],
)
def test_what_mmdet_drops_silently_is_noted(tmp_path, segmentation, message):
    stops, notes = look(tmp_path, segmentation)
    assert not stops and len(notes) == 1 and message in notes[0]


@pytest.mark.parametrize("segmentation", [[[1, 1]], [[1, 1, 5, 5]], [[1, 1], *SQUARE]])
def test_polygons_that_fail_in_pycocotools_are_refused_where_it_scores(tmp_path, segmentation):
    """The oracle is pycocotools itself."""
    with pytest.raises(Exception):  # noqa: B017 - it raises whatever its conversions raise
        coco_mask.frPyObjects(segmentation, 8, 8)
    stops, _ = look(tmp_path, segmentation, scored=True)
    assert len(stops) == 1 and "first polygon has fewer than three points" in stops[0]


def test_odd_polygons_that_pycocotools_takes_do_not_stop(tmp_path):
    coco_mask.frPyObjects([[1, 1, 5, 5, 5]], 8, 8)
    stops, _ = look(tmp_path, [[1, 1, 5, 5, 5]], scored=True)
    assert not stops


def test_chunks_give_what_the_whole_gives(tmp_path, monkeypatch):
    annotations = [annotation(index, segmentation=[*SQUARE, [1, 1, 2, 2]][: 1 + index % 2]) for index in range(7)]
    write_coco(tmp_path, annotations=annotations)
    whole, _ = inspect_datasets(coco_config(tmp_path, pipeline=LOADING))
    monkeypatch.setattr(coco_segmentations, "CHUNK", 2)
    parts, _ = inspect_datasets(coco_config(tmp_path, pipeline=LOADING))
    assert parts == whole and "3 of 7 annotations (id 1, 3, 5)" in whole[0].text


def test_broken_compressed_run_lengths_are_refused(tmp_path):
    stops, _ = look(tmp_path, dict(size=[8, 8], counts="\x01\x02"))
    assert len(stops) == 1
