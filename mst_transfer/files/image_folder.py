"""Finding and decoding the photographs of any nested folder; no labels are needed."""

import io
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.ImageOps
from mmengine.logging import print_log

from mst_transfer.files.image_crops import Image
from mst_transfer.files.image_files import (
    FLOATS,
    IMAGE_EXTENSIONS,
    JPEG,
    MAX_PIXELS,
    UnreadableImageError,
    declared_size,
    ends_well,
    open_with_pil,
    read_image_file,
    shown_path,
)

_NOTICE_SECONDS = 10.0
_BITS_PER_SAMPLE = 258  # TIFF's tag
_IMREAD_RGB = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)  # older OpenCV: BGR only
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def find_images(root: str | os.PathLike[str], extensions: Iterable[str] = IMAGE_EXTENSIONS) -> list[str]:
    """Paths of all images under a folder, sorted: the same on every machine.

    Links to folders are followed, each folder once; names that start with a dot are left out.

    Raises:
        FileNotFoundError: the folder is missing, or holds no image.
    """
    suffixes = tuple(sorted({e.lower() if e.startswith(".") else f".{e.lower()}" for e in extensions}))
    root = os.fspath(root)
    if not os.path.isdir(root):
        what = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise FileNotFoundError(
            f"data_root '{root}' {what} (looked from {Path.cwd()}). Set data_root to a folder of images; "
            "sub-folders are searched and no labels are needed."
        )
    found = _scan(root, suffixes)
    if not found:
        raise FileNotFoundError(
            f"No image under data_root '{root}': looked in it and all its sub-folders for names ending "
            f"in {', '.join(suffixes)}. Set data_root to the folder that holds the images, or extensions "
            "to the endings of their names; of .tar shards, mst shard --index makes an index."
        )
    return found


def _scan(root: str, suffixes: tuple[str, ...]) -> list[str]:
    """Images below ``root``, sorted; tells how far it is every few seconds."""
    found, seen, last_notice = list[str](), {os.path.realpath(root)}, time.monotonic()
    for folder, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        below, folders[:] = sorted(folders), []
        for name in below:
            real = os.path.realpath(os.path.join(folder, name))
            if real not in seen and not name.startswith("."):
                seen.add(real)
                folders.append(name)
        names = [name for name in names if not name.startswith(".")]
        found += [os.path.join(folder, name) for name in names if name.lower().endswith(suffixes)]
        if time.monotonic() - last_notice > _NOTICE_SECONDS:
            last_notice = time.monotonic()
            print_log(f"Looking for images in {root}: {len(found):,} so far", logger="current")
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise ValueError(
        f"folder '{shown_path(error.filename)}' below data_root cannot be listed ({error.strerror}): mend that, or "
        "name the folders beside it in data_root"
    ) from error


def read_image(
    path: str | os.PathLike[str],
    exif_orientation: bool = False,
    max_pixels: int = MAX_PIXELS,
    reduction: Callable[[int, int], int] | None = None,
    read: Callable[[Any, int], bytes] = read_image_file,
) -> Image:
    """Decodes a file to uint8 RGB [H, W, 3], whatever its mode.

    Complete JPEG and PNG files are decoded by OpenCV, everything else by PIL. Grey, palette and CMYK images become
    RGB, transparency is dropped, 16-bit values are divided by 256, 32-bit ones refused, colour profiles are ignored;
    of an animation or a file of several pages the first is taken.

    Args:
        exif_orientation: turn the image as its EXIF tag says. The default leaves it, as DINO's loader does.
        max_pixels: width × height that the header may declare; see ``mst_transfer.files.image_files``.
        reduction: takes height and width, and says by how much (1, 2, 4 or 8) a complete JPEG file is shrunk while it
            is decoded: sides become ``ceil(side / reduction)``. Other files, and all that are turned, keep their size.
        read: gives the bytes, as ``read_image_file`` does, where ``path`` is but a name.

    Raises:
        UnreadableImageError: not an image, a truncated one, or one that is too large.
        OSError: the machine has no file handle left.
        MemoryError: the image is allowed, but does not fit into memory.
    """
    try:
        data = read(path, max_pixels)
        image = _decode_opencv(data, exif_orientation, None if exif_orientation else reduction)
        return _decode_pil(data, exif_orientation) if image is None else image
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise nearly every type on broken files
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no memory for image '{shown_path(path)}'") from error
        raise UnreadableImageError(f"Cannot read image '{shown_path(path)}': {error}") from error


def _decode_opencv(data: bytes, exif_orientation: bool, reduction: Callable[[int, int], int] | None) -> Image | None:
    """RGB image of a complete JPEG or PNG; None where PIL has to look."""
    if not ends_well(data):
        return None
    if reduction is not None and data.startswith(JPEG):
        image = _decode_reduced(data, reduction)
        if image is not None:
            return image
    flags = _IMREAD_RGB if exif_orientation else _IMREAD_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if image is not None and _IMREAD_RGB == cv2.IMREAD_COLOR:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image


def _decode_reduced(data: bytes, reduction: Callable[[int, int], int]) -> Image | None:
    """RGB image of a JPEG file at a fraction of its size; None where it is wanted whole, or cannot be decoded so."""
    width, height = declared_size(io.BytesIO(data))
    factor = reduction(height, width)
    if factor == 1:
        return None
    flags = _REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if image is None or image.shape[:2] != (-(-height // factor), -(-width // factor)):
        return None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _decode_pil(data: bytes, exif_orientation: bool) -> Image:
    with open_with_pil(io.BytesIO(data)) as picture:
        picture.load()
        upright = PIL.ImageOps.exif_transpose(picture) if exif_orientation else picture
        if upright.mode == "F":
            raise ValueError(FLOATS)
        if 32 in getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()):
            raise ValueError("32-bit integer images have no fixed range; store them with 8 or 16 bits")
        if upright.mode.startswith("I"):  # 16-bit grey, which PIL would clip to 255
            gray = (np.asarray(upright).clip(0, 65535) >> 8).astype(np.uint8)
            return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)
        return np.array(upright.convert("RGB"))
