"""Pictures: colours stand where the labels are; grids of several jobs are one; files stay in their folder."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from matplotlib import colormaps

from mst_transfer.card.job_pictures import NUM_PHOTOS, _short_names, shown_images
from mst_transfer.card.pictures import (
    MAX_SIDE,
    PHOTO,
    TRUTH,
    Instances,
    colours_of,
    draw_answer,
    read_pictures,
    save_pictures,
)

CLASSES = ("disc", "box")
FIRST, LAST = (np.array(colormaps["turbo"](place)[:3]) * 255 for place in (0.1, 0.718))


def test_photos_of_one_name_are_told_apart():
    assert _short_names(["/a/x.jpg", "/a/y.jpg"]) == ["x.jpg", "y.jpg"]
    assert _short_names(["/a/b/x.jpg", "/c/b/x.jpg", "/c/b/y.jpg"]) == ["a/b/x.jpg", "c/b/x.jpg", "c/b/y.jpg"]


def tinted(value: float, colour: np.ndarray) -> np.ndarray:
    return 0.4 * value + 0.6 * colour


def test_a_label_map_colours_every_pixel_but_the_ignored() -> None:
    labels = np.zeros((6, 9), np.int64)
    labels[:, 3:], labels[:, 6:] = 1, 255
    image = np.full((6, 9, 3), 100, np.uint8)
    drawn = draw_answer(image, labels, CLASSES)
    assert drawn.shape == (MAX_SIDE * 2 // 3, MAX_SIDE, 3) and drawn.dtype == np.uint8 and (image == 100).all()
    third = MAX_SIDE // 3
    for place, colour in enumerate((tinted(100, FIRST), tinted(100, LAST), np.full(3, 100))):
        part = drawn[:, place * third + 1 : (place + 1) * third - 1]
        assert np.abs(part - colour).max() <= 1
    assert list(colours_of([labels], CLASSES)) == ["disc", "box"]
    assert colours_of([labels], CLASSES)["box"] == "#{:02x}{:02x}{:02x}".format(*LAST.round().astype(int))


def test_an_instance_is_tinted_inside_its_mask_and_framed() -> None:
    mask = np.zeros((1, 48, 72), bool)
    mask[0, 20:36, 30:60] = True
    found = Instances(np.array([[30.0, 20, 60, 36]]), mask, np.array([1]), np.array([0.87]))
    drawn = draw_answer(np.full((48, 72, 3), 100, np.uint8), found, CLASSES)
    scale = MAX_SIDE / 72
    inside = drawn[round(30 * scale) : round(34 * scale), round(40 * scale) : round(55 * scale)]
    assert np.abs(inside - tinted(100, LAST)).max() <= 1
    assert (drawn[: round(18 * scale)] == 100).all() and (drawn[:, : round(28 * scale)] == 100).all()
    assert np.abs(drawn[round(20 * scale), round(45 * scale)] - LAST).max() <= 1, "the frame"
    words = [
        draw_answer(np.full((48, 72, 3), 100, np.uint8), found._replace(scores=s), CLASSES) for s in (None, [0.12])
    ]
    assert all((other != drawn).any() for other in words), "the score is written"
    assert colours_of([found], CLASSES).keys() == {"box"}


def test_large_photographs_shrink() -> None:
    image = np.zeros((1000, 2000, 3), np.uint8)
    assert draw_answer(image, np.zeros((1000, 2000), int), CLASSES).shape == (MAX_SIDE // 2, MAX_SIDE, 3)


def test_grids_of_several_jobs_are_one(tmp_path: Path) -> None:
    pictures = {name: np.full((10, 900, 3), number, np.uint8) for number, name in enumerate((PHOTO, TRUTH, "a", "b"))}
    for folder, columns in (("3", ["b"]), ("1", [PHOTO, TRUTH]), ("2", ["a"])):
        cells = {photo: {name: pictures[name] for name in columns} for photo in ("x.png", "y.png")}
        save_pictures(tmp_path / folder, "predictions", "camvid", cells, "Evenly.", {"disc": "#000000"})
    save_pictures(tmp_path / "maps", "maps", "Attention", {"x.png": {"a": pictures["a"]}})
    save_pictures(tmp_path / "0", "predictions", "camvid", {"x.png": {"a": pictures["b"]}}, "Of another job.")
    found = read_pictures([tmp_path / name for name in ("1", "2", "3", "maps")], ["a", "none", "b"])
    assert list(found) == ["Predictions", "Attention and components"]
    (grid,), (maps,) = found.values()
    assert grid["columns"] == [PHOTO, TRUTH, "a", "b"] and maps["columns"] == ["a"] and maps["legend"] == {}
    assert list(grid["cells"]) == ["x.png", "y.png"] and grid["legend"] == {"disc": "#000000"}
    assert (grid["title"], grid["caption"]) == ("camvid", "Evenly.")
    for row in grid["cells"].values():
        for name, path in row.items():
            saved = cv2.imread(str(path))
            assert saved.shape == (5, MAX_SIDE, 3) and np.abs(saved.astype(int) - pictures[name][0, 0]).max() <= 1


def test_colours_are_not_swapped(tmp_path: Path) -> None:
    save_pictures(tmp_path, "maps", "", {"x": {PHOTO: np.full((8, 8, 3), (200, 100, 0), np.uint8)}})
    ((grid,),) = read_pictures([tmp_path], []).values()
    assert np.abs(cv2.imread(str(grid["cells"]["x"][PHOTO]))[..., ::-1] - (200.0, 100, 0)).max() <= 3


def test_a_job_that_runs_again_leaves_the_same(tmp_path: Path) -> None:
    for _ in range(2):
        save_pictures(tmp_path, "maps", "", {"x": {PHOTO: np.zeros((8, 8, 3), np.uint8)}})
    assert {path.name for path in tmp_path.iterdir()} == {"index.json", "00_00.jpg"}


def test_pictures_stay_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    save_pictures(tmp_path / "own", "maps", "", {"x": {PHOTO: np.zeros((8, 8, 3), np.uint8)}})
    index = json.loads((tmp_path / "own" / "index.json").read_text())
    index["cells"]["x"] = {"a": "../secret.jpg", "b": "/etc/passwd", PHOTO: "00_00.jpg"}
    (tmp_path / "own" / "index.json").write_text(json.dumps(index))
    ((grid,),) = read_pictures([tmp_path], []).values()
    assert grid["cells"] == {"x": {PHOTO: tmp_path / "own" / "00_00.jpg"}}


@pytest.mark.parametrize(("total", "expected"), [(10, [1, 3, 6, 8]), (3, [0, 1, 2])])
def test_shown_images_are_spread_evenly(total: int, expected: list[int]) -> None:
    assert NUM_PHOTOS == 4 and shown_images(SimpleNamespace(val=range(total))) == expected
