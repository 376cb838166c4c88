"""Run lengths are sound if pycocotools decodes every pixel of them; polygons that fail there are refused."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from small_sets import SQUARE, annotation, coco_config, said, write_coco

from mst_transfer.preflight import coco_masks
from mst_transfer.preflight.coco_masks import add_up

LOADING = [dict(type="LoadAnnotations", with_bbox=True, with_mask=True)]


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths_cover_as_many_pixels_as_pycocotools_wrote(seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 400, 2).tolist()
    mask = np.asfortranarray(random.random((height, width)) < random.choice([0.0, 0.02, 0.5, 1.0]), np.uint8)
    counts, number = coco_mask.encode(mask)["counts"].decode(), height * width
    assert [n for n in range(number - 2, number + 3) if add_up(counts, n)] == [number]


@pytest.mark.parametrize("text", ["Xo0", "1", "", "P", "Pr", "é", "~~~", "oooooooooo1", "0\0", "\ud800", "o" * 40])
def test_texts_that_are_no_run_lengths(text):
    """Of such pycocotools writes beyond the mask, or leaves a part of it undefined."""
    assert not add_up(text, 64)


SOUND = [
    SQUARE,
    [*SQUARE, [1, 1, 2, 2, 3, 1]],
    dict(size=[8, 8], counts=coco_mask.encode(np.ones((8, 8), np.uint8, order="F"))["counts"].decode()),
    dict(size=[8, 8], counts=[10, 54]),
    dict(size=[8, 8], counts=[0, 64]),
]


def test_sound_masks_pass(tmp_path):
    write_coco(tmp_path, annotations=[annotation(index, segmentation=mask) for index, mask in enumerate(SOUND)])
    assert said(coco_config(tmp_path, pipeline=LOADING)) == ([], [])


@pytest.mark.parametrize("polygons", [[[1, 1]], [[1, 1, 5, 5]], [[1, 1], *SQUARE], [[1, 1, 5, 5, 5]]])
def test_polygons_that_fail_in_pycocotools_are_refused_where_it_scores(tmp_path, polygons):
    """The oracle is pycocotools itself, which takes an odd number from five on."""
    path = write_coco(tmp_path, annotations=[annotation(1), annotation(2, segmentation=polygons)])
    cfg = coco_config(tmp_path, pipeline=LOADING)
    cfg.val_dataloader = cfg.train_dataloader
    cfg.val_evaluator = dict(type="CocoMetric", metric=["segm"], ann_file=str(path))
    stops, _ = said(cfg, ["val_dataloader"])
    try:
        coco_mask.frPyObjects(polygons, 8, 8)
    except Exception:
        assert len(stops) == 1 and "1 of 2 annotations (id 2) whose first polygon has fewer than three" in stops[0]
    else:
        assert not stops and len(polygons[0]) == 5


def test_chunks_give_what_the_whole_gives(tmp_path, monkeypatch):
    annotations = [annotation(index, segmentation=[*SQUARE, [1, 1, 2, 2]][: 1 + index % 2]) for index in range(7)]
    write_coco(tmp_path, annotations=annotations)
    _, whole = said(coco_config(tmp_path, pipeline=LOADING))
    assert "3 of 7 annotations (id 1, 3, 5)" in whole[0]
    monkeypatch.setattr(coco_masks, "CHUNK", 2)
    assert said(coco_config(tmp_path, pipeline=LOADING)) == ([], whole)
