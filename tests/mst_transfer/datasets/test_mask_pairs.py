"""Which images and label maps two patterns pair, against the files that were written."""

from pathlib import Path

import pytest

from mst_transfer.datasets.mask_pairs import match

LAYOUTS = {  # pattern of images and of masks
    "two folders": ("images/{}.jpg", "masks/{}.png"),
    "one folder": ("data/{}.jpg", "data/{}.png"),
    "endings": ("{}.png", "{}_mask.png"),
    "endings of images": ("{}_image.png", "{}.png"),
    "beginnings": ("d/img_{}.png", "d/seg_{}.png"),
    "a folder an image": ("scenes/{}/image.tif", "scenes/{}/label.png"),
    "other depths": ("raw/camera/{}.JPG", "{}.gt.png"),
}
TEXTS = ["a", "b.1", "deep/er/c", "deep/a"]


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path, monkeypatch) -> None:
    images, masks = LAYOUTS[layout]
    write(tmp_path, *(pattern.replace("{}", text) for pattern in (images, masks) for text in TEXTS))
    write(tmp_path, images.replace("{}", "alone"), masks.replace("{}", "left/over"), "notes.txt")
    monkeypatch.chdir(tmp_path)
    for root in (f"{tmp_path}/", ""):  # the second: relative to the working directory
        found = match(root + images, root + masks)
        of = [{text: str(tmp_path / p.replace("{}", text)) for text in TEXTS} for p in (images, masks)]
        pairs = [tuple(str(Path(path).absolute()) for path in pair) for pair in found[0]]
        assert sorted(pairs) == sorted((of[0][text], of[1][text]) for text in TEXTS)
        assert [Path(path).name for path in found[1]] == [Path(images.replace("{}", "alone")).name]
        assert [Path(path).name for path in found[2]] == [Path(masks.replace("{}", "left/over")).name]


@pytest.mark.parametrize(
    ("images", "masks", "said"),
    [
        ("images/a.jpg", "masks/{}.png", "'images/a.jpg': give two patterns with {} once"),
        ("images/{}/{}.jpg", "masks/{}.png", "with {} once"),
        ("images/{}", "masks/{}.png", "'images/{}': give two patterns with {} once, and an ending"),
        ("{}.png", "{}.png", "'{}.png': give two patterns"),
    ],
)
def test_no_patterns(images: str, masks: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        match(images, masks)


def test_no_pair_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "images/1.jpg", "images/2.jpg", "masks/1_gt.png")
    with pytest.raises(ValueError, match=r"2 files .*images/\{\}.jpg and 1 files .*, e.g. .*1.jpg, e.g. .*1_gt.png"):
        match(f"{tmp_path}/images/{{}}.jpg", f"{tmp_path}/masks/{{}}.png")
    with pytest.raises(ValueError, match=r"no image has a mask: 0 files"):
        match(f"{tmp_path}/nowhere/{{}}.jpg", f"{tmp_path}/masks/{{}}.png")
