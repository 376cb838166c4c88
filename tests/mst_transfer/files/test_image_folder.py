"""Finding and decoding images of every kind."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mst_transfer.files.image_folder import UnreadableImageError, find_images, read_image

PHOTOGRAPH = data.chelsea()[:120, :160]


def save(path: Path, array: np.ndarray = PHOTOGRAPH, mode: str | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def test_finds_nested_images_sorted_and_leaves_out_the_rest(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.JPEG", "a/x/y/z.png", "top.jpg", ".hidden/1.jpg", "a/.thumb.jpg"):
        save(tmp_path / name, PHOTOGRAPH[:8, :8])
    (tmp_path / "a" / "notes.txt").write_text("no image")
    found = [os.path.relpath(p, tmp_path) for p in find_images(tmp_path)]
    assert found == ["a/x/y/z.png", "b/10.JPEG", "b/2.jpg", "top.jpg"]
    assert find_images([tmp_path / "b", tmp_path / "a"]) == [
        str(tmp_path / n) for n in ("b/10.JPEG", "b/2.jpg", "a/x/y/z.png")
    ]
    assert [os.path.basename(p) for p in find_images(tmp_path, extensions=("PNG",))] == ["z.png"]


def test_links_are_followed_and_each_folder_is_read_once(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.jpg", PHOTOGRAPH[:8, :8])
    root = tmp_path / "root"
    for name in ("a/2.jpg", "b/c/3.jpg"):
        save(root / name, PHOTOGRAPH[:8, :8])
    os.symlink(tmp_path / "elsewhere", root / "b" / "linked")
    os.symlink(root, root / "a" / "loop")
    os.symlink(root / "b" / "c", root / "z")
    found = find_images(root)
    assert sorted(os.path.basename(p) for p in found) == ["1.jpg", "2.jpg", "3.jpg"]
    assert found == sorted(found)


def test_order_of_the_file_system_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/1.jpg", "a/2.jpg", "a/c/3.jpg"):
        save(tmp_path / name, PHOTOGRAPH[:8, :8])
    os.symlink(tmp_path / "a" / "c", tmp_path / "b" / "same")

    @contextmanager
    def reordered(folder: str, backwards: bool) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=backwards)

    scandir, found = os.scandir, []
    for backwards in (False, True):
        monkeypatch.setattr(os, "scandir", partial(reordered, backwards=backwards))
        found.append(find_images(tmp_path))
    assert found[0] == found[1] and len(found[0]) == 3


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere' does not exist .*Set data_root"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"No image under data_root.*\.jpeg, \.jpg"):
        find_images(tmp_path, extensions=(".jpg", "jpeg"))
    file = save(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match="is a file, not a folder"):
        find_images(file)
    with pytest.raises(ValueError, match="data_root is empty"):
        find_images([])


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "open" / "1.jpg", PHOTOGRAPH[:8, :8])
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refusing(folder: str) -> Iterator[os.DirEntry[str]]:  # chmod would not stop root
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match=r"locked' below data_root cannot be listed \(Permission denied\): mend that"):
        find_images(tmp_path)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "bmp", "tif", "gif", "ppm"])
def test_every_format_equals_pil(tmp_path: Path, extension: str) -> None:
    path = save(tmp_path / f"a.{extension}")
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    image = read_image(path)
    assert image.shape == (120, 160, 3) and image.dtype == np.uint8
    assert np.abs(image - expected).max() <= (2 if extension == "jpg" else 0)


@pytest.mark.parametrize(
    ("mode", "extension"),
    [("L", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("LA", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png")],
)
def test_every_mode_becomes_rgb_as_in_pil(tmp_path: Path, mode: str, extension: str) -> None:
    path = save(tmp_path / f"a.{extension}", mode=mode)
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    image = read_image(path)
    assert image.shape == (120, 160, 3)
    assert np.abs(image - expected).max() <= 2


def test_transparency_is_dropped_as_in_pil(tmp_path: Path) -> None:
    array = np.dstack([PHOTOGRAPH, np.full(PHOTOGRAPH.shape[:2], 10, dtype=np.uint8)])
    assert np.array_equal(read_image(save(tmp_path / "a.png", array)), PHOTOGRAPH)


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bit_gray_keeps_its_range(tmp_path: Path, extension: str) -> None:
    levels = np.linspace(0, 65535, 256 * 4).reshape(32, 32).astype(np.uint16)
    image = read_image(save(tmp_path / f"a.{extension}", levels))
    assert np.abs(image.astype(int) - (levels // 256)[..., None]).max() <= 1


def test_exif_orientation_is_ignored_unless_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    for extension in ("jpg", "webp"):
        path = save(tmp_path / f"a.{extension}", exif=exif)
        assert read_image(path).shape == (120, 160, 3)
        assert read_image(path, exif_orientation=True).shape == (160, 120, 3)


def encoded(extension: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).save(buffer, format=extension)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image at all",
        encoded("JPEG")[:2000],
        encoded("JPEG")[:-500],
        encoded("PNG")[:2000],
        encoded("PNG")[:-500],
        encoded("WEBP")[:1000],
        b"\xff\xd8\xff\xff\xd9",
        b"\x89PNG\r\n\x1a\n" + b"0" * 50 + b"IEND1234",
    ],
    ids=["empty", "text", "jpeg-head", "jpeg-tail", "png-head", "png-tail", "webp", "jpeg-void", "png-void"],
)
def test_truncated_and_foreign_files_are_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"Cannot read image '.*broken\.jpg'"):
        read_image(path)


def test_missing_file_and_float_image_are_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UnreadableImageError, match="floating-point"):
        read_image(save(tmp_path / "a.tif", np.ones((4, 4), dtype=np.float32)))


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG") + b"\0\0trailer")
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(read_image(path), expected)
