"""Every fault of annotations that we know: said before the first step, with the way out, and never a traceback."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import bad_images
import numpy as np
import pytest
from PIL import Image
from small_sets import (
    SQUARE,
    annotation,
    change_json,
    coco_config,
    mask_file,
    said,
    seg_config,
    write_coco,
    write_masks,
)

HUGE = [[float(value % 8) for value in range(200_000)]]
STOPS, NOTED = True, False


def changed(**changes: object) -> Callable[[dict], None]:
    """Changes the first annotation."""
    return placed("annotations", **changes)


def without(part: str, key: str) -> Callable[[dict], None]:
    return lambda content: content[part][0].pop(key)


def placed(part: str, **changes: object) -> Callable[[dict], None]:
    return lambda content: content[part][0].update(changes)


def top(**values: object) -> Callable[[dict], None]:
    return lambda content: content.update(values)


def many(*boxes: list[float]) -> Callable[[dict], None]:
    """25 boxes, which is enough to call a habit one: the first one 24 times or more, and others."""
    boxes = (*boxes[:1] * (26 - len(boxes)), *boxes[1:])
    return top(annotations=[annotation(index, bbox=box) for index, box in enumerate(boxes)])


def run_lengths(counts: object, size: object = (8, 8)) -> Callable[[dict], None]:
    return changed(segmentation=dict(size=list(size), counts=counts))


NOT_COCO = "is not an annotation file in COCO's format"
# name → what is done to the file, whether it stops a run, what is said
COCO = {
    "box of NaN": (changed(bbox=[math.nan, 1, 4, 4]), STOPS, "1 of 3 annotations .id 0. whose bbox is not 4 finite"),
    "box of texts": (changed(bbox=["1", "1", "4", "4"]), STOPS, "whose bbox is not 4 finite numbers"),
    "box of three": (changed(bbox=[1, 1, 4]), STOPS, "whose bbox is not 4 finite numbers"),
    "box missing": (without("annotations", "bbox"), STOPS, "whose bbox is not 4 finite numbers"),
    "boxes of corners": (many([2, 3, 7, 8]), STOPS, r"two corners.*in 25 of 25 .*e.g. \[2.0, 3.0, 7.0, 8.0\]"),
    "boxes of fractions": (many([0.1, 0.2, 0.5, 1.0]), STOPS, "fractions of the image: no side is longer than 1"),
    "boxes partly outside": (many([0, 0, 4, 4], [6, 6, 8, 8]), NOTED, "^1 boxes reach more than 1 px beyond"),
    "box negative": (changed(bbox=[5, 5, -4, -4]), NOTED, "leaves out 1 of 3 annotations .id 0.: no box side of 1 px"),
    "box outside": (changed(bbox=[20, 20, 4, 4]), NOTED, "leaves out 1 of 3 annotations .id 0.: box outside"),
    "area missing": (without("annotations", "area"), STOPS, "without an area; mmdet needs it"),
    "area negative": (changed(area=-1), NOTED, "leaves out 1 of 3 annotations .id 0.: area of 0 or less"),
    "area NaN": (changed(area=math.nan), STOPS, "without an area; mmdet needs it"),
    "iscrowd a text": (changed(iscrowd="no"), STOPS, "iscrowd .* neither 0 nor 1"),
    "annotation id twice": (changed(id=1), STOPS, r"annotation ids that occur more than once: \[1\]"),
    "annotation id a text": (changed(id="0"), STOPS, r"annotations\[0\].id is '0'; it must be a whole number"),
    "annotation id missing": (without("annotations", "id"), STOPS, r"annotations\[0\].id is None"),
    "annotation id beyond 64 bits": (changed(id=2**70), STOPS, "annotations have a id beyond 64 bits"),
    "image id twice": (placed("images", id=1), STOPS, r"image ids that occur more than once: \[1\]"),
    "image id a text": (placed("images", id="0"), STOPS, r"images\[0\].id is '0'"),
    "image id unknown": (changed(image_id=77), NOTED, "leaves out 1 of 3 annotations .id 0.: their image is not in"),
    "image size zero": (placed("images", height=0), STOPS, r"without a width and height .*\[8.0, 0.0\]"),
    "image size missing": (without("images", "width"), STOPS, "1 of 3 images .id 0. without a width and height"),
    "image size a fraction": (placed("images", height=8.5), STOPS, "without a width and height in pixels"),
    "image size another": (placed("images", height=9), STOPS, "0.png is 8 × 8, not 8 × 9"),
    "image name missing": (without("images", "file_name"), STOPS, "1 of 3 images .id 0. without a file_name"),
    "image name with a null": (placed("images", file_name="a\0b.png"), STOPS, "a.*b.png"),
    "image named twice": (placed("images", file_name="1.png"), NOTED, "1 image files are named .* several ids, e.g. 1"),
    "image file missing": (placed("images", file_name="no.png"), STOPS, "1 of 3 images .* are not in .*no.png"),
    "category unknown": (changed(category_id=9), STOPS, r"have a category_id that no category has: \[9\]"),
    "category a text": (changed(category_id="1"), STOPS, r"annotations\[0\].category_id is '1'"),
    "category id twice": (placed("categories", id=2), STOPS, r"categories with the same id: \[2\]"),
    "category id a text": (placed("categories", id="1"), STOPS, "category ids must be whole numbers"),
    "category id beyond 64 bits": (placed("categories", id=10**30), STOPS, "category ids .* of at most 63 bits"),
    "category name twice": (placed("categories", name="dog"), STOPS, r"categories with the same name: \['?dog"),
    "category name missing": (without("categories", "name"), STOPS, r"categories without a name: ids \[1\]"),
    "category name a list": (placed("categories", name=["cat"]), STOPS, r"categories without a name: ids \[1\]"),
    "images null": (top(images=None), STOPS, NOT_COCO),
    "images of texts": (top(images=["a.png"]), STOPS, NOT_COCO),
    "annotations with a null": (lambda content: content["annotations"].append(None), STOPS, NOT_COCO),
    "annotations null": (top(annotations=None), STOPS, "nothing to learn from|COCO's format"),
    "categories missing": (lambda content: content.pop("categories"), STOPS, NOT_COCO),
    "categories empty": (top(categories=[]), STOPS, "none of the classes"),
    "mask missing": (without("annotations", "segmentation"), STOPS, "without a segmentation, and the model learns"),
    "mask empty": (changed(segmentation=[]), STOPS, "without a segmentation"),
    "mask of an empty polygon": (changed(segmentation=[[]]), NOTED, "does not learn from 1 of 3"),
    "mask of two points": (changed(segmentation=[[1, 1, 5, 5]]), NOTED, "does not learn from 1 of 3"),
    "mask of five numbers": (changed(segmentation=[[1, 1, 5, 5, 5]]), NOTED, "does not learn from 1 of 3"),
    "mask with a point": (changed(segmentation=[[1, 1], *SQUARE]), NOTED, "drops polygons of 1 of 3"),
    "mask of odd numbers": (changed(segmentation=[*SQUARE, [1, 1, 5, 1, 5, 5, 1]]), NOTED, "drops polygons of 1 of 3"),
    "mask of NaN": (changed(segmentation=[[math.nan, 1, 5, 1, 5, 5]]), STOPS, "something else than finite numbers"),
    "mask of texts": (changed(segmentation=[["1", 1, 5, 1, 5, 5]]), STOPS, "something else than finite numbers"),
    "mask of points in lists": (changed(segmentation=[[[1, 1], [5, 1], [5, 5], [1, 5], [1, 1], [2, 2]]]), STOPS, "num"),
    "mask flat": (changed(segmentation=[1, 1, 5, 1, 5, 5]), STOPS, "whose segmentation is not a list of polygons"),
    "mask a text": (changed(segmentation="abc"), STOPS, "whose segmentation is not a list of polygons"),
    "mask outside": (changed(segmentation=[[90, 90, 95, 90, 95, 95]]), NOTED, "reach more than 1 px beyond the image"),
    "mask of 100,000 points": (changed(segmentation=HUGE), NOTED, ""),
    "run lengths of another size": (run_lengths([0, 72], (8, 9)), STOPS, r"first has size \[8, 9\], its image"),
    "run lengths too few": (run_lengths([0, 60]), STOPS, "do not add up"),
    "run lengths negative": (run_lengths([-4, 68]), STOPS, "cannot be decoded"),
    "run lengths of texts": (run_lengths(["0", "64"]), STOPS, "cannot be decoded"),
    "run lengths garbled": (run_lengths("~~~ü"), STOPS, "cannot be decoded"),
    "run lengths beyond the mask": (run_lengths("Xo0"), STOPS, "do not add up"),
    "run lengths without counts": (changed(segmentation=dict(size=[8, 8])), STOPS, "whose segmentation is not"),
    "run lengths size of texts": (run_lengths([64], ("8", "8")), STOPS, "another size"),
}
FILES = {
    "empty": b"",
    "cut off": b'{"images": [{"id": 1, "file_name": "0.p',
    "a list": b"[]",
    "no categories": b'{"images": []}',
    "not UTF-8": b"\xff\xfe\x00".ljust(50, b"\xff"),
    "numbers beyond all measure": b'{"images": ' + b"9" * 10_000 + b"}",
    "nested beyond all measure": b"[" * 200_000,
}
LOADING = [dict(type="LoadAnnotations", with_bbox=True, with_mask=True)]


@pytest.mark.parametrize("name", COCO)
def test_faults_of_a_coco_file(tmp_path: Path, name: str) -> None:
    change, stops, message = COCO[name]
    change_json(write_coco(tmp_path), change)
    stopping, notes = said(coco_config(tmp_path, pipeline=LOADING))
    assert bool(stopping) is stops, stopping
    assert re.search(message, "\n".join(stopping if stops else notes), re.M), (stopping, notes)


@pytest.mark.parametrize("name", FILES)
def test_faults_of_a_whole_file(tmp_path: Path, name: str) -> None:
    write_coco(tmp_path).write_bytes(FILES[name])
    ((text,), _) = said(coco_config(tmp_path))
    assert NOT_COCO in text and len(text) < 600


@pytest.mark.parametrize("case", [case for case in bad_images.BROKEN if case.name.endswith(("jpg", "png", "tif"))])
def test_images_that_cannot_be_read_are_said(tmp_path: Path, case: bad_images.Case) -> None:
    """As far as headers tell: what is cut off behind them is found when it is read."""
    change_json(write_coco(tmp_path), placed("images", file_name=case.make(tmp_path / "train").name))
    stops, _ = said(coco_config(tmp_path))
    assert any(case.name in text for text in stops)


MASKS = {
    "cut off": "1 of 3 masks that were read are broken: mask .* cannot be read",
    "bomb": "cannot be read .its header declares 100000 × 100000 pixels",
    "16 bits": "",
    "16 bits beyond": "values from 0 to 256; class ids go from 0 to 255",
    "colours": "3 channels: colours instead of class ids",
    "alpha": "2 channels",
    "palette": "",
    "one bit": "",
    "black and white": "holds 128; allowed are 0 to 1",
    "another size": "is 9 × 8, its image 8 × 8",
    "float": "holds floating-point numbers",
}


@pytest.mark.parametrize("name", MASKS)
def test_faults_of_a_mask(tmp_path: Path, name: str) -> None:
    write_masks(tmp_path)
    (tmp_path / "gtFine/train/town/1_gtFine_labelTrainIds.png").write_bytes(mask_file(name))
    stops, _ = said(seg_config(tmp_path))
    assert not stops if not MASKS[name] else re.search(MASKS[name], stops[0])


def test_palettes_are_not_read_by_opencv(tmp_path: Path) -> None:
    write_masks(tmp_path)
    for path in (tmp_path / "gtFine/train/town").iterdir():
        path.write_bytes(mask_file("palette"))
    stops, _ = said(seg_config(tmp_path, pipeline=[dict(type="LoadAnnotations", imdecode_backend="cv2")]))
    assert "the masks have palettes, and LoadAnnotations with imdecode_backend='cv2' would read their col" in stops[0]


def test_limits_are_the_configs(tmp_path: Path) -> None:
    write_coco(tmp_path)
    cfg = coco_config(tmp_path)
    cfg.image_checks = dict(max_pixels=63)
    assert "0.png cannot be read (its header declares 8 × 8 pixels, more than max" in said(cfg)[0][0]


def test_lines_of_pixels_are_said(tmp_path: Path) -> None:
    change_json(write_coco(tmp_path), placed("images", width=900, height=8))
    Image.fromarray(np.zeros((8, 900, 3), np.uint8)).save(tmp_path / "train" / "0.png")
    stops, notes = said(coco_config(tmp_path))
    assert not stops  # training leaves it out, and counts it
    assert any("1 of 3 images (id 0) with one side more than 100 times the other" in text for text in notes)
