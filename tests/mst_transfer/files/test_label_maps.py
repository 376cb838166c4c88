"""Label maps of every kind, and files that are none."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from small_sets import mask_file

from mst_transfer.files.image_files import UnreadableImageError
from mst_transfer.files.label_maps import check_label_values, read_label_map

IDS = np.array([[0, 1, 255], [7, 19, 3]], np.uint8)


def test_class_ids_go_from_0_to_255() -> None:
    check_label_values(np.array([[0, 255]], np.int32))
    for value in (-1, 256):
        with pytest.raises(UnreadableImageError, match=f"values from {value} to {value}"):
            check_label_values(np.array([[value]], np.int32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_8_and_16_bits(tmp_path: Path, dtype: type) -> None:
    PIL.Image.fromarray(IDS.astype(dtype)).save(tmp_path / "a.png")
    labels = read_label_map(tmp_path / "a.png")
    assert labels.dtype == np.uint8 and np.array_equal(labels, IDS)


def test_palettes_and_single_bits(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(mask_file("palette", IDS))
    assert np.array_equal(read_label_map(tmp_path / "p.png"), IDS)
    PIL.Image.fromarray(IDS > 1).save(tmp_path / "b.png")
    assert np.array_equal(read_label_map(tmp_path / "b.png"), IDS > 1)


@pytest.mark.parametrize("case", ["colours", "large ids", "truncated", "missing", "empty", "folder"])
def test_errors_name_the_file(tmp_path: Path, case: str) -> None:
    path, random = tmp_path / "mask.png", np.random.default_rng(0)
    if case == "colours":
        PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    elif case == "large ids":
        PIL.Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(path)
    elif case == "truncated":
        PIL.Image.fromarray(random.integers(0, 9, (64, 64), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:700])
    elif case == "empty":
        path.touch()
    elif case == "folder":
        path.mkdir()
    with pytest.raises(UnreadableImageError, match="mask .*mask.png cannot be read .*one channel of 8 bits"):
        read_label_map(path)
