"""Image files that nobody vouches for: opened without hanging, measured before anything is decoded.

Both sides read images through ``read_image_file``. It refuses what is no ordinary file (a pipe would block for
ever), no image, or an image whose header declares more pixels than allowed: a file of some kilobytes can ask a decoder
for gigabytes. PIL looks only for the formats in ``FORMATS``: by itself it would hand a PostScript file, whatever its
name, to Ghostscript.
"""

import errno
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import PIL.Image

MAX_PIXELS = 178_956_970  # where PIL refuses by default: 0.5 GB of 8-bit RGB
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # how such files begin
_EXIF_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
FLOATS = "floating-point images have no fixed range; store them with 8 or 16 bits"
_WHOLE_BYTES = 2**26  # files up to here are read at once; of larger ones the header first
_MAX_BYTES_A_PIXEL = 16  # four channels of 32 bits
_EXTRA_BYTES = 2**26  # headers, profiles, further pages
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)  # not of the file
_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN)  # network disks
_PAUSES = (0.1, 0.5)  # seconds before further attempts
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_PIL_LIMIT = threading.RLock()


class UnreadableImageError(ValueError):
    """A file that holds no complete image, or one that is not allowed."""


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path in one line of valid text: line breaks and bytes that are no UTF-8 are written as ``\\n``, ``\\xff``."""
    text = os.fsencode(os.fspath(path).replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def read_image_file(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, *, any_format: bool = False) -> bytes:
    """The content of an image file.

    Args:
        path: the file.
        max_pixels: width × height that its header may declare.
        any_format: take formats that are not known here too; then only the size of the file is limited.

    Raises:
        UnreadableImageError: not an ordinary file, not readable, empty, no image, or too many pixels.
        OSError: the machine has no file handle or memory left.
    """
    return read_patiently(path, lambda: _read(path, max_pixels, any_format))


def read_patiently(path: str | os.PathLike[str], read: Callable[[], bytes]) -> bytes:
    """Reads from a file, and once more where the fault may pass. Errors are those of ``read_image_file``."""
    for pause in (*_PAUSES, None):
        try:
            return read()
        except OSError as error:
            if error.errno in _OF_THE_MACHINE:
                raise
            if error.errno not in _PASSING or pause is None:
                raise UnreadableImageError(_reason(path, error)) from error
        time.sleep(pause)
    raise AssertionError


def _read(path: str | os.PathLike[str], max_pixels: int, any_format: bool) -> bytes:
    check_kind(path)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("it is not a file any more")
        if status.st_size > _WHOLE_BYTES:
            if not any_format:
                check_pixels(file, max_pixels)
            check_bytes(status.st_size, max_pixels)
            file.seek(0)
            return file.read()
        data = file.read()
    if not any_format:
        check_pixels(io.BytesIO(data), max_pixels)
    return data


def check_bytes(size: int, max_pixels: int) -> None:
    """Raises UnreadableImageError for a file, of ``size`` bytes, that is empty or too large to be worth reading."""
    if not size:
        raise UnreadableImageError("the file is empty")
    if size > max_pixels * _MAX_BYTES_A_PIXEL + _EXTRA_BYTES:
        raise UnreadableImageError(f"{size:,} bytes are more than {max_pixels:,} pixels can need")


def check_kind(path: str | os.PathLike[str]) -> None:
    """Before a file is opened: a pipe would block, and a device may act on it."""
    status = os.stat(path)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise UnreadableImageError(f"it is {_KINDS.get(kind, 'not a file')}, not a file")
    if not status.st_size:
        raise UnreadableImageError("the file is empty")


def _reason(path: str | os.PathLike[str], error: OSError) -> str:
    if error.errno == errno.ENOENT and os.path.islink(path):
        return f"it is a link to {shown_path(os.readlink(path))}, which does not exist"
    return error.strerror or str(error)


def check_pixels(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> None:
    """Looks at the header of an image.

    Raises:
        UnreadableImageError: no image that is known here, or more pixels than allowed.
    """
    width, height = declared_size(file)
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"its header declares {width} × {height} pixels, more than max_pixels={max_pixels:,}; if that is right, "
            "raise max_pixels, or scale the image down"
        )


def declared_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height in pixels as the header of an image says them; nothing is decoded.

    Raises:
        UnreadableImageError: no image that is known here.
    """
    file.seek(0)
    head = file.read(30)  # the frequent formats here: PIL takes 60 to 190 µs for a JPEG's header, this 4, decoding 200
    if head.startswith(JPEG):
        size = _jpeg_size(file)
    elif head.startswith(PNG):
        size = (_big(head[16:20]), _big(head[20:24])) if head[12:16] == b"IHDR" else None
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        size = _webp_size(head)  # PIL before 13 makes a canvas of that size on opening
    else:
        file.seek(0)
        with open_with_pil(file) as picture:
            size = picture.size
    if size is None or min(size) < 1:
        raise UnreadableImageError("its header is incomplete")
    return size


@contextmanager
def open_image_file(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Iterator[PIL.Image.Image]:
    """PIL's image of a file, not yet decoded; of a large file only the header is read.

    Raises:
        UnreadableImageError: see ``read_image_file``.
    """
    try:
        check_kind(path)
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise
        raise UnreadableImageError(_reason(path, error)) from error
    with file:
        check_pixels(file, max_pixels)
        file.seek(0)
        with open_with_pil(file) as picture:
            yield picture


@contextmanager
def open_with_pil(file: BinaryIO) -> Iterator[PIL.Image.Image]:
    """PIL's image of a file in one of the formats known here, not yet decoded, and without PIL's own limit.

    Raises:
        UnreadableImageError: it is none of them, or broken.
    """
    PIL.Image.init()
    known = [name for name in FORMATS if name in PIL.Image.OPEN]
    with _PIL_LIMIT:
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            picture: Any = PIL.Image.open(file, formats=known)
        except PIL.UnidentifiedImageError:
            raise UnreadableImageError("it is no image") from None
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError) as error:
            if getattr(error, "errno", None):
                raise
            raise UnreadableImageError(f"its header is broken ({error})") from error
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit
    with picture:
        yield picture


def upright_size(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of an image as its header declares them, turned as its EXIF data say.

    Raises:
        UnreadableImageError: it cannot be read, or declares more pixels than allowed.
    """
    try:
        with open_image_file(path, max_pixels) as picture:
            turns = {} if picture.format == "TIFF" else picture.getexif()  # PIL turns TIFF files by itself
            turned = turns.get(_EXIF_ORIENTATION) in _QUARTER_TURNS
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableImageError(f"image {shown_path(path)} cannot be read ({error})") from error


def check_complete(data: bytes) -> None:
    """Finds truncated files that OpenCV would show in part, the rest grey, without a word.

    JPEG and PNG files that end as they must are taken as complete; other formats that OpenCV is lenient with, and odd
    ends, are decoded by PIL, which is strict. Damage inside a JPEG's data cannot be told from a picture.

    Raises:
        UnreadableImageError: the file is truncated or broken.
    """
    if not ends_well(data) and data[:4] not in (b"II*\0", b"MM\0*", b"RIFF"):  # OpenCV refuses these by itself
        check_by_decoding(data)


def ends_well(data: bytes) -> bool:
    """Whether it is a JPEG or PNG file with the end that it must have."""
    return data.startswith(JPEG) and data[-2:] == b"\xff\xd9" or data.startswith(PNG) and data[-8:-4] == b"IEND"


def check_by_decoding(data: bytes) -> None:
    """Decodes an image with PIL, to learn why another decoder does not.

    Raises:
        UnreadableImageError: says what is wrong.
    """
    with open_with_pil(io.BytesIO(data)) as picture:
        if picture.mode == "F":
            raise UnreadableImageError(FLOATS)
        try:
            picture.load()
        except MemoryError:
            raise
        except Exception as error:  # PIL's decoders raise nearly every type on broken files
            raise UnreadableImageError(f"it is truncated or broken ({error})") from error


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """Walks from marker to marker up to the frame header."""
    file.seek(2)
    while byte := file.read(1):
        if byte != b"\xff":
            continue
        while byte == b"\xff":
            byte = file.read(1)
        marker = byte[0] if byte else 0xD9
        if marker == 0x00 or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        if marker in (0xD9, 0xDA):  # end, or scan: without a frame
            return None
        length = _big(file.read(2))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = file.read(5)
            return (_big(frame[3:5]), _big(frame[1:3])) if len(frame) == 5 else None
        file.seek(max(length - 2, 0), io.SEEK_CUR)
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    kind, little = head[12:16], head[20:30]
    if len(little) < 10:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(little[4:7], "little"), 1 + int.from_bytes(little[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(little[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(little[6:8], "little") & 0x3FFF, int.from_bytes(little[8:10], "little") & 0x3FFF
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")
