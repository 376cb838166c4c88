"""Image files are opened without hanging and measured before anything is decoded."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import bad_images
import pytest
from PIL import Image

from mst_transfer.files import image_files
from mst_transfer.files.image_files import UnreadableImageError, declared_size, read_image_file, shown_path

BOUNDED = """
import resource, sys, numpy, PIL.Image, cv2
from mst_transfer.files.image_files import UnreadableImageError, check_complete, read_image_file
from mst_transfer.files.image_folder import read_image
from mst_transfer.datasets.load_image import LoadImage
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = in_use + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    for read in (read_image, LoadImage().read):
        try:
            read(path)
        except UnreadableImageError as error:
            assert "pixels" in str(error), error
        else:
            raise AssertionError(path)
print("survived", len(sys.argv) - 1)
"""


@pytest.mark.parametrize("case", bad_images.GOOD, ids=lambda case: case.name)
def test_sizes_of_headers_are_those_of_the_pixels(tmp_path: Path, case: bad_images.Case) -> None:
    data = read_image_file(case.make(tmp_path))
    assert case.pixels is not None and declared_size(io.BytesIO(data)) == case.pixels.shape[1::-1]
    image_files.check_complete(data)


def test_bombs_are_refused_before_any_memory_is_taken(tmp_path: Path) -> None:
    """In a process that may take 300 MB more; the smallest of these images has 800 MB of pixels."""
    paths = [str(case.make(tmp_path)) for case in bad_images.BOMBS]
    done = subprocess.run([sys.executable, "-c", BOUNDED, *paths], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and f"survived {len(paths)}" in done.stdout, done.stderr


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    path = bad_images.GOOD[0].make(tmp_path)
    assert read_image_file(path, 36 * 24)
    with pytest.raises(UnreadableImageError, match="declares 36 × 24 pixels, more than max_pixels=863; if that"):
        read_image_file(path, 36 * 24 - 1)
    image = Image.new("1", (20_000, 20_000))  # beyond the limit of PIL, which must not speak before ours
    image.save(tmp_path / "large.tif", compression="tiff_lzw")
    assert read_image_file(tmp_path / "large.tif", 4 * 10**8)


def test_a_large_file_is_looked_at_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("text")
    os.truncate(path, 2**40)  # a terabyte that takes no space
    with pytest.raises(UnreadableImageError, match="no image"):
        read_image_file(path)
    good = bad_images.GOOD[1].make(tmp_path)
    os.truncate(good, 2**40)
    with pytest.raises(UnreadableImageError, match="bytes are more than 178,956,970 pixels can need"):
        read_image_file(good)
    with pytest.raises(UnreadableImageError, match="bytes are more than"):
        read_image_file(path, any_format=True)


def test_faults_of_the_machine_are_not_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = bad_images.GOOD[0].make(tmp_path), []
    monkeypatch.setattr(image_files, "_PAUSES", (0, 0))

    def failing(code: int, times: int) -> None:
        def read(*args: object) -> bytes:
            calls.append(code)
            if calls.count(code) <= times:
                raise OSError(code, os.strerror(code))
            return b"read"

        monkeypatch.setattr(image_files, "_read", read)

    failing(errno.EMFILE, 9)
    with pytest.raises(OSError, match="Too many open files") as error:
        read_image_file(path)
    assert not isinstance(error.value, UnreadableImageError) and len(calls) == 1
    failing(errno.ESTALE, 2)  # a network disk: the third attempt counts
    assert read_image_file(path) == b"read" and calls.count(errno.ESTALE) == 3
    failing(errno.EIO, 9)
    with pytest.raises(UnreadableImageError, match="Input/output error"):
        read_image_file(path)
    failing(errno.EACCES, 9)  # as for a file without permission; chmod does not stop root
    with pytest.raises(UnreadableImageError, match="Permission denied"):
        read_image_file(path)


def test_names_are_shown_in_one_line_of_valid_text() -> None:
    shown = shown_path(os.fsdecode("写真\n\t ä\\".encode() + b"\xe9.jpg"))
    assert shown == "写真\\n\\t ä\\\\\\xe9.jpg" and shown.encode()


CUT = ["jpeg_cut_in_scan.jpg", "png_cut_in_data.png", "gif_cut.gif", "bmp_cut.bmp", "ppm_cut.ppm"]


@pytest.mark.parametrize("name", CUT)
def test_truncated_files_are_found_whatever_opencv_makes_of_them(tmp_path: Path, name: str) -> None:
    """OpenCV 5 refuses some of these by itself; OpenCV 4 fills the rest of a JPEG with grey."""
    case = next(case for case in bad_images.BROKEN if case.name == name)
    with pytest.raises(UnreadableImageError, match="truncated"):
        image_files.check_complete(case.make(tmp_path).read_bytes())
