"""Are the images of a dataset on the disk, and as large as its annotations say?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from mst_transfer.files.image_files import MAX_PIXELS, UnreadableImageError, open_image_file, shown_path
from mst_transfer.preflight.findings import Finding
from mst_transfer.preflight.progress import Progress

MAX_IMAGES = 200
MAX_SECONDS = 10.0
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


def missing_files(paths: Sequence[str]) -> list[str]:
    """Those of the paths that are no files; lists each folder once instead of asking for every file."""
    folders: dict[str, set[str]] = {}
    absent = []
    progress = Progress("that files exist", len(paths))
    for number, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in folders:
            try:
                with os.scandir(folder or ".") as entries:
                    folders[folder] = {entry.name for entry in entries if entry.is_file()}
            except OSError:
                folders[folder] = set()
            progress.update(number)
        if name not in folders[folder] and not os.path.isfile(path):
            absent.append(path)
    return absent


def image_size(path: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height as mmcv reads the image: turned as its EXIF data say. Reads the header only.

    Raises:
        ValueError: if it cannot be read, or declares more pixels than allowed.
    """
    try:
        with open_image_file(path, max_pixels) as image:
            turned = image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, UnreadableImageError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"image {shown_path(path)} cannot be read ({error}); write it again, or remove it") from error


def check_sizes(
    paths: Sequence[str], sizes: Sequence[tuple[float, float]], max_pixels: int = MAX_PIXELS
) -> Iterator[Finding]:
    """Compares some of the files, evenly spaced, with the sizes that the annotations give.

    Args:
        paths: image files that exist.
        sizes: their width and height by the annotations.
        max_pixels: of an image.
    """
    step = max(-(-len(paths) // MAX_IMAGES), 1)
    started, read, wrong, broken = time.monotonic(), 0, [], []
    for path, (width, height) in list(zip(paths, sizes, strict=True))[::step]:
        try:
            found = image_size(path, max_pixels)
        except ValueError as error:
            broken.append(str(error))
        else:
            if found != (width, height):
                wrong.append(
                    f"{path} is {found[0]} × {found[1]}, not {width:g} × {height:g}{_hint(found, width, height)}"
                )
        read += 1
        if time.monotonic() - started > MAX_SECONDS:
            break
    if broken:
        yield Finding(f"{len(broken)} of {read} images that were looked at are broken: {broken[0]}")
    if wrong:
        yield Finding(
            f"{len(wrong)} of {read} images that were looked at are of another size than the annotations say: "
            f"{'; '.join(wrong[:3])}. Boxes and masks would lie elsewhere: scale the annotations to the files"
        )


def _hint(found: tuple[int, int], width: float, height: float) -> str:
    turned = found == (height, width) and width != height
    return " (width and height exchanged, or the EXIF turn of the photo left out)" if turned else ""
