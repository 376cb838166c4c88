"""Every fault of annotations that we know: said before the first step, with the way out, and never a traceback."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import bad_images
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from small_sets import SQUARE, annotation, coco_config, seg_config, write_coco, write_masks

from mst_transfer.cli.main import main
from mst_transfer.preflight.coco_segmentations import run_lengths
from mst_transfer.preflight.dataset_checks import inspect_datasets
from mst_transfer.preflight.findings import raise_if_any

RUN_LENGTHS = dict(size=[8, 8], counts=[0, 64])
HUGE = [[float(value % 8) for value in range(200_000)]]
STOPS, NOTED = True, False


def changed(**changes: object) -> Callable[[dict], None]:
    """Changes the first annotation."""
    return lambda content: content["annotations"][0].update(changes)


def without(part: str, key: str) -> Callable[[dict], None]:
    return lambda content: content[part][0].pop(key)


def placed(part: str, **changes: object) -> Callable[[dict], None]:
    return lambda content: content[part][0].update(changes)


def appended(part: str, item: object) -> Callable[[dict], None]:
    return lambda content: content[part].append(item)


def top(key: str, value: object) -> Callable[[dict], None]:
    return lambda content: content.update({key: value})


NOT_COCO = "is not an annotation file in COCO's format"
# name → what is done to the file, whether it stops a run, what is said
COCO = {
    "box of NaN": (changed(bbox=[math.nan, 1, 4, 4]), STOPS, "1 of 3 annotations .id 0. whose bbox is not 4 finite"),
    "box of infinity": (changed(bbox=[1, 1, math.inf, 4]), STOPS, "whose bbox is not 4 finite numbers"),
    "box of texts": (changed(bbox=["1", "1", "4", "4"]), STOPS, "whose bbox is not 4 finite numbers"),
    "box of null": (changed(bbox=None), STOPS, "whose bbox is not 4 finite numbers"),
    "box a number": (changed(bbox=4), STOPS, "whose bbox is not 4 finite numbers"),
    "box of three": (changed(bbox=[1, 1, 4]), STOPS, "whose bbox is not 4 finite numbers"),
    "box of nested lists": (changed(bbox=[[1], [1], [4], [4]]), STOPS, "whose bbox is not 4 finite numbers"),
    "box missing": (without("annotations", "bbox"), STOPS, "whose bbox is not 4 finite numbers"),
    "box negative": (changed(bbox=[5, 5, -4, -4]), NOTED, "leaves out 1 of 3 annotations .id 0.: no box side of 1 px"),
    "box outside": (changed(bbox=[20, 20, 4, 4]), NOTED, "leaves out 1 of 3 annotations .id 0.: box outside"),
    "area missing": (without("annotations", "area"), STOPS, "without an area; mmdet needs it"),
    "area a text": (changed(area="16"), STOPS, "without an area; mmdet needs it"),
    "area negative": (changed(area=-1), NOTED, "leaves out 1 of 3 annotations .id 0.: area of 0 or less"),
    "area NaN": (changed(area=math.nan), STOPS, "without an area; mmdet needs it"),
    "iscrowd a text": (changed(iscrowd="no"), STOPS, "iscrowd .* neither 0 nor 1"),
    "iscrowd null": (changed(iscrowd=None), STOPS, "iscrowd .* neither 0 nor 1"),
    "annotation id twice": (changed(id=1), STOPS, r"annotation ids that occur more than once: \[1\]"),
    "annotation id a text": (changed(id="0"), STOPS, r"annotations\[0\].id is '0'; it must be a whole number"),
    "annotation id missing": (without("annotations", "id"), STOPS, r"annotations\[0\].id is None"),
    "annotation id beyond 64 bits": (changed(id=2**70), STOPS, "annotations have a id beyond 64 bits"),
    "image id twice": (placed("images", id=1), STOPS, r"image ids that occur more than once: \[1\]"),
    "image id a text": (placed("images", id="0"), STOPS, r"images\[0\].id is '0'"),
    "image id unknown": (changed(image_id=77), NOTED, "leaves out 1 of 3 annotations .id 0.: their image is not in"),
    "image size missing": (without("images", "width"), STOPS, "1 of 3 images .id 0. without a width and height"),
    "image size a text": (placed("images", width="8"), STOPS, "without a width and height in pixels"),
    "image size negative": (placed("images", height=-8), STOPS, "without a width and height in pixels"),
    "image size NaN": (placed("images", height=math.nan), STOPS, "without a width and height in pixels"),
    "image size a fraction": (placed("images", height=8.5), STOPS, "without a width and height in pixels"),
    "image size another": (placed("images", height=9), STOPS, "0.png is 8 × 8, not 8 × 9"),
    "image name missing": (without("images", "file_name"), STOPS, "1 of 3 images .id 0. without a file_name"),
    "image name a number": (placed("images", file_name=3), STOPS, "1 of 3 images .id 0. without a file_name"),
    "image name with a null": (placed("images", file_name="a\0b.png"), STOPS, "a.*b.png"),
    "image file missing": (placed("images", file_name="no.png"), STOPS, "1 of 3 images .* are not in .*no.png"),
    "category unknown": (changed(category_id=9), STOPS, r"have a category_id that no category has: \[9\]"),
    "category a text": (changed(category_id="1"), STOPS, r"annotations\[0\].category_id is '1'"),
    "category missing": (without("annotations", "category_id"), STOPS, r"annotations\[0\].category_id is None"),
    "category id twice": (placed("categories", id=2), STOPS, r"categories with the same id: \[2\]"),
    "category id a text": (placed("categories", id="1"), STOPS, "category ids must be whole numbers"),
    "category id missing": (without("categories", "id"), STOPS, "category ids must be whole numbers"),
    "category name twice": (placed("categories", name="dog"), STOPS, r"categories with the same name: \['?dog"),
    "category name missing": (without("categories", "name"), STOPS, r"categories without a name: ids \[1\]"),
    "category name a list": (placed("categories", name=["cat"]), STOPS, r"categories without a name: ids \[1\]"),
    "images null": (top("images", None), STOPS, NOT_COCO),
    "images an object": (top("images", {"1": {}}), STOPS, NOT_COCO),
    "images of texts": (top("images", ["a.png"]), STOPS, NOT_COCO),
    "annotations a number": (top("annotations", 3), STOPS, NOT_COCO),
    "annotations an object": (top("annotations", {"1": {}}), STOPS, NOT_COCO),
    "annotations with a null": (appended("annotations", None), STOPS, NOT_COCO),
    "annotations null": (top("annotations", None), STOPS, "nothing to learn from|COCO's format"),
    "categories missing": (lambda content: content.pop("categories"), STOPS, NOT_COCO),
    "categories a text": (top("categories", "cat"), STOPS, NOT_COCO),
    "categories empty": (top("categories", []), STOPS, "none of the classes"),
    "mask missing": (without("annotations", "segmentation"), STOPS, "without a segmentation, and the model learns"),
    "mask null": (changed(segmentation=None), STOPS, "without a segmentation"),
    "mask empty": (changed(segmentation=[]), STOPS, "without a segmentation"),
    "mask of an empty polygon": (changed(segmentation=[[]]), NOTED, "does not learn from 1 of 3"),
    "mask of two points": (changed(segmentation=[[1, 1, 5, 5]]), NOTED, "does not learn from 1 of 3"),
    "mask of odd numbers": (changed(segmentation=[*SQUARE, [1, 1, 5, 1, 5, 5, 1]]), NOTED, "drops polygons of 1 of 3"),
    "mask of NaN": (changed(segmentation=[[math.nan, 1, 5, 1, 5, 5]]), STOPS, "something else than finite numbers"),
    "mask of texts": (changed(segmentation=[["1", 1, 5, 1, 5, 5]]), STOPS, "something else than finite numbers"),
    "mask of null": (changed(segmentation=[[None] * 6]), STOPS, "something else than finite numbers"),
    "mask of points in lists": (changed(segmentation=[[[1, 1], [5, 1], [5, 5], [1, 5], [1, 1], [2, 2]]]), STOPS, "num"),
    "mask flat": (changed(segmentation=[1, 1, 5, 1, 5, 5]), STOPS, "whose segmentation is not a list of polygons"),
    "mask a text": (changed(segmentation="abc"), STOPS, "whose segmentation is not a list of polygons"),
    "mask a number": (changed(segmentation=7), STOPS, "whose segmentation is not a list of polygons"),
    "mask outside": (changed(segmentation=[[90, 90, 95, 90, 95, 95]]), NOTED, "reach more than 1 px beyond the image"),
    "mask of 100,000 points": (changed(segmentation=HUGE), NOTED, ""),
    "run lengths of another size": (
        changed(segmentation=dict(size=[8, 9], counts=[0, 72])),
        STOPS,
        r"the first has size \[8, 9\], its image",
    ),
    "run lengths too few": (changed(segmentation=dict(size=[8, 8], counts=[0, 60])), STOPS, "do not add up"),
    "run lengths negative": (changed(segmentation=dict(size=[8, 8], counts=[-4, 68])), STOPS, "cannot be decoded"),
    "run lengths of texts": (changed(segmentation=dict(size=[8, 8], counts=["0", "64"])), STOPS, "cannot be decoded"),
    "run lengths garbled": (changed(segmentation=dict(size=[8, 8], counts="~~~ü")), STOPS, "cannot be decoded"),
    "run lengths short text": (changed(segmentation=dict(size=[8, 8], counts="1")), STOPS, "cannot be decoded"),
    "run lengths beyond the mask": (changed(segmentation=dict(size=[8, 8], counts="Xo0")), STOPS, "do not add up"),
    "run lengths without counts": (changed(segmentation=dict(size=[8, 8])), STOPS, "whose segmentation is not"),
    "run lengths without size": (changed(segmentation=dict(counts=[64])), STOPS, "whose segmentation is not"),
    "run lengths size of texts": (changed(segmentation=dict(size=["8", "8"], counts=[64])), STOPS, "another size"),
}
FILES = {
    "empty": (b"", NOT_COCO),
    "cut off": (b'{"images": [{"id": 1, "file_name": "0.p', NOT_COCO),
    "no JSON": (b"not JSON", NOT_COCO),
    "a list": (b"[]", NOT_COCO),
    "a number": (b"3", NOT_COCO),
    "not UTF-8": b"\xff\xfe\x00".ljust(50, b"\xff"),
    "binary": bytes(range(256)),
    "nested beyond all measure": (b"[" * 100_000, NOT_COCO),
}


def said_of(root: Path, dataset: dict | None = None) -> tuple[list[str], list[str]]:
    """What stops a run, and what is noted."""
    pipeline = [dict(type="LoadAnnotations", with_bbox=True, with_mask=True)]
    cfg = coco_config(root, pipeline=pipeline, **(dataset or {}))
    cfg.val_evaluator = None
    findings, summaries = inspect_datasets(cfg)
    stops = [finding.text for finding in findings if finding.stops]
    return stops, [text for one in summaries for text in one.notes]


@pytest.mark.parametrize("name", COCO)
def test_faults_of_a_coco_file(tmp_path: Path, name: str) -> None:
    change, stops, message = COCO[name]
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    stopping, notes = said_of(tmp_path)
    assert bool(stopping) is stops, stopping
    assert re.search(message, "\n".join(stopping if stops else notes)), (stopping, notes)


@pytest.mark.parametrize("name", FILES)
def test_faults_of_a_whole_file(tmp_path: Path, name: str) -> None:
    entry = FILES[name]
    data, message = entry if isinstance(entry, tuple) else (entry, NOT_COCO)
    write_coco(tmp_path).write_bytes(data)
    (text,), _ = said_of(tmp_path)
    assert re.search(message, text) and len(text) < 600


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths_are_read_as_pycocotools_writes_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 400, 2)
    mask = np.asfortranarray(random.random((height, width)) < random.choice([0.0, 0.02, 0.5, 1.0]), np.uint8)
    counts = run_lengths(coco_mask.encode(mask)["counts"].decode())
    flat = mask.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    assert counts is not None and counts.tolist() == np.diff([0, *edges, flat.size]).tolist()


def test_texts_that_are_no_run_lengths() -> None:
    found = run_lengths("Xo0")  # 1,000 pixels, which pycocotools would write wherever they belong
    assert found is not None and found.tolist() == [1000] and run_lengths("") is None
    assert run_lengths("P") is None and run_lengths("é") is None and run_lengths("oooooooooo1") is None


def test_good_masks_of_all_kinds_pass(tmp_path: Path) -> None:
    write_coco(tmp_path, annotations=[annotation(0), annotation(1, 1, segmentation=RUN_LENGTHS), annotation(2, 2)])
    assert said_of(tmp_path) == ([], [])


@pytest.mark.parametrize("case", [case for case in bad_images.BROKEN if case.name.endswith(("jpg", "png", "tif"))])
def test_images_that_cannot_be_read_are_said(tmp_path: Path, case: bad_images.Case) -> None:
    """As far as headers tell: what is cut off behind them is found when it is read."""
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = case.make(tmp_path / "train").name
    path.write_text(json.dumps(content))
    stops, _ = said_of(tmp_path)
    assert any(case.name in text for text in stops)


def mask_bytes(name: str) -> bytes:
    ids = np.resize(np.array([0, 1], np.uint8), (8, 8))
    if name == "cut off":
        return bad_images.encode(Image.fromarray(ids), "PNG")[:45]
    if name == "bomb":
        return next(case for case in bad_images.BOMBS if case.name == "bomb.png").write.__closure__[0].cell_contents
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    pictures = {
        "16 bits": Image.fromarray(ids.astype(np.uint16)),
        "16 bits beyond": Image.fromarray(ids.astype(np.uint16) * 256),
        "colours": Image.fromarray(np.dstack([ids] * 3)),
        "alpha": Image.fromarray(np.dstack([ids] * 2)),
        "palette": palette,
        "one bit": Image.fromarray(ids > 0),
        "black and white": Image.fromarray(ids * 128),
        "another size": Image.fromarray(np.resize(ids, (8, 9))),
        "float": Image.fromarray(ids.astype(np.float32)),
    }
    return bad_images.encode(pictures[name], "TIFF" if name == "float" else "PNG")


MASKS = {
    "cut off": "1 of 3 masks that were read are broken: mask .* cannot be read",
    "bomb": "cannot be read .its header declares 100000 × 100000 pixels",
    "16 bits": "",
    "16 bits beyond": "holds 256; allowed are 0 to 1",
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
    (tmp_path / "gtFine/train/town/1_gtFine_labelTrainIds.png").write_bytes(mask_bytes(name))
    findings, _ = inspect_datasets(seg_config(tmp_path))
    if not MASKS[name]:
        assert not findings
        return
    with pytest.raises(ValueError, match=MASKS[name]):
        raise_if_any(findings)


def test_palettes_are_not_read_by_opencv(tmp_path: Path) -> None:
    write_masks(tmp_path)
    for path in (tmp_path / "gtFine/train/town").iterdir():
        path.write_bytes(mask_bytes("palette"))
    loading = [dict(type="LoadAnnotations", imdecode_backend="cv2")]
    with pytest.raises(ValueError, match="the masks have palettes, .*imdecode_backend='cv2' would read their colours"):
        raise_if_any(inspect_datasets(seg_config(tmp_path, pipeline=loading))[0])


def test_check_says_it_without_a_traceback(
    tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    masks = next(tmp_path.rglob("masks"))
    for path, name in zip(sorted(masks.iterdir()), ("cut off", "bomb", "colours"), strict=False):
        path.write_bytes(mask_bytes(name))
    assert main(["check", str(tiny_seg_config)]) == 1
    said = capsys.readouterr().err
    assert "3 of 8 masks that were read are broken" in said and "Traceback" not in said


def test_limits_are_the_configs(tmp_path: Path) -> None:
    write_coco(tmp_path)
    cfg = coco_config(tmp_path)
    cfg.image_checks = dict(max_pixels=63)
    with pytest.raises(ValueError, match="0.png cannot be read .its header declares 8 × 8 pixels, more than max"):
        raise_if_any(inspect_datasets(cfg)[0])


def test_lines_of_pixels_are_said(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["images"][0].update(width=900, height=8)
    Image.fromarray(np.zeros((8, 900, 3), np.uint8)).save(tmp_path / "train" / "0.png")
    path.write_text(json.dumps(content))
    stops, notes = said_of(tmp_path)
    assert not stops  # training leaves it out, and counts it
    assert any("1 of 3 images (id 0) with one side more than 100 times the other" in text for text in notes)
