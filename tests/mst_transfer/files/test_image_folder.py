"""Finding images; ``tests/pretrain/test_bad_images.py`` decodes every kind of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mst_transfer.files.image_files import UnreadableImageError
from mst_transfer.files.image_folder import find_images, read_image
from mst_transfer.files.photos import Photos

PHOTOGRAPH = data.chelsea()[:120, :160]


def save(path: Path, array: np.ndarray = PHOTOGRAPH) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def test_finds_nested_images_sorted_and_leaves_out_the_rest(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.JPEG", "a/x/y/z.png", "top.jpg", ".hidden/1.jpg", "a/.thumb.jpg"):
        save(tmp_path / name, PHOTOGRAPH[:8, :8])
    (tmp_path / "a" / "notes.txt").write_text("no image")
    found = [os.path.relpath(p, tmp_path) for p in find_images(tmp_path)]
    assert found == ["a/x/y/z.png", "b/10.JPEG", "b/2.jpg", "top.jpg"]
    photos = Photos([tmp_path / "b", tmp_path / "a"])
    assert [photos[number] for number in range(len(photos))] == [
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

    walk, found = os.walk, []
    for backwards in (False, True):

        def reordered(*words: Any, backwards: bool = backwards, **options: Any) -> Iterator[tuple]:
            for folder, folders, names in walk(*words, **options):
                folders.sort(reverse=backwards)
                yield folder, folders, sorted(names, reverse=backwards)

        monkeypatch.setattr(os, "walk", reordered)
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
        Photos([])


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "open" / "1.jpg", PHOTOGRAPH[:8, :8])
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refusing(folder: str) -> Iterator[os.DirEntry[str]]:  # chmod would not stop root
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match=r"locked' below data_root cannot be listed \(Permission denied\): mend that"):
        find_images(tmp_path)


def test_integers_of_16_bits_are_scaled_and_of_32_refused(tmp_path: Path) -> None:
    gray = PHOTOGRAPH[..., 0]
    for name, stored in (("a.tif", gray.astype(np.uint16) * 256), ("a.pgm", gray.astype(np.int32) * 256)):
        assert np.array_equal(read_image(save(tmp_path / name, stored))[..., 1], gray)
    for name, stored in (("b.tif", gray.astype(np.int32)), ("b.tiff", gray.astype(np.int32) * 256)):
        with pytest.raises(UnreadableImageError, match=rf"{name}': 32-bit integer images .* with 8 or 16 bits"):
            read_image(save(tmp_path / name, stored))
