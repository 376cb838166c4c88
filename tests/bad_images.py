"""Images as they turn up in data sets: good in every kind, broken in every way. One list for all who read images.

Each case writes one file and says what must come of it: the pixels, or a reason for refusing it.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

HEIGHT, WIDTH = 24, 36
_y, _x = np.mgrid[:HEIGHT, :WIDTH]
# Smooth, so that JPEG changes little, and without any symmetry, so that every turn shows.
PHOTO: NDArray[np.uint8] = np.stack([20 + 6 * _x, 30 + 8 * _y, 200 - 3 * _x - 2 * _y], axis=-1).astype(np.uint8)
GRAY: NDArray[np.uint8] = PHOTO[..., 1].copy()


@dataclass(frozen=True)
class Case:
    """One file."""

    name: str  # of the case, and of the file unless file_name is given
    write: Callable[[Path], None]
    pixels: NDArray[np.uint8] | None = None  # RGB [H, W, 3] that reading gives; None where the file is refused
    reason: str = ""  # part of the message where it is refused, a regular expression
    tolerance: int = 0  # grey levels, for lossy formats
    turned: NDArray[np.uint8] | None = None  # pixels where EXIF's orientation is obeyed; None: as pixels
    file_name: str = ""
    is_listed: bool = True  # whether a search of the folder names the file at all; folders are not

    def make(self, folder: Path) -> Path:
        """Writes the file into a folder."""
        path = folder / (self.file_name or self.name)
        self.write(path)
        return path


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def content(data: bytes) -> Callable[[Path], None]:
    """Writes these bytes."""
    return lambda path: path.write_bytes(data) and None


def picture(image: Image.Image, kind: str, **options: object) -> Callable[[Path], None]:
    """Writes a picture."""
    return content(encode(image, kind, **options))


def as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """What PIL makes of it."""
    return np.asarray(image.convert("RGB"))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file written by hand: any header, any content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def png_16_bits(array: NDArray[np.uint16], colour: int) -> bytes:
    """A PNG file of 16 bits a channel, which PIL cannot write in colour."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return png(array.shape[1], array.shape[0], rows, 16, colour)


def that_declares(kind: str, at: int | bytes, form: str, *sides: int) -> bytes:
    """A small picture whose header has other sides: at a place, or five bytes behind a marker."""
    data = bytearray(encode(Image.fromarray(GRAY if kind == "GIF" else PHOTO), kind))
    struct.pack_into(form, data, at if isinstance(at, int) else data.index(at) + 5, *sides)
    return bytes(data)


def tiff_that_declares(width: int, height: int) -> bytes:
    """A small TIFF whose width and height entries are changed."""
    data = bytearray(encode(Image.fromarray(PHOTO), "TIFF"))
    (offset,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[offset : offset + 2])
    for entry in range(count):
        at = offset + 2 + 12 * entry
        (tag,) = struct.unpack("<H", data[at : at + 2])
        if tag in (256, 257):
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(data)


def webp_that_declares(width: int, height: int) -> bytes:
    """An extended WebP file with a canvas and little else."""
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (width - 1).to_bytes(3, "little")
    chunk += (height - 1).to_bytes(3, "little") + encode(Image.fromarray(PHOTO), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _upright(orientation: int) -> NDArray[np.uint8]:
    """The photo turned as EXIF's definition says it: the eight symmetries of a rectangle."""
    return {
        1: PHOTO,
        2: PHOTO[:, ::-1],
        3: PHOTO[::-1, ::-1],
        4: PHOTO[::-1],
        5: PHOTO.transpose(1, 0, 2),
        6: PHOTO[::-1].transpose(1, 0, 2),
        7: PHOTO[::-1, ::-1].transpose(1, 0, 2),
        8: PHOTO[:, ::-1].transpose(1, 0, 2),
    }[orientation]


def _ycck() -> bytes:
    """A four-channel JPEG in Adobe's YCCK: a CMYK one whose transform marker is changed, so its colours differ."""
    data = bytearray(encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


_RGB = Image.fromarray(PHOTO)
_CUBE = np.stack([PHOTO.astype(np.uint16)[..., i] * 256 + 17 for i in range(3)], axis=-1)
_FRAMES = [Image.fromarray(255 - PHOTO), Image.fromarray(PHOTO // 2)]
_PALETTE = _RGB.quantize(64)
_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
_CMYK = _RGB.convert("CMYK")
_JPEG = encode(_RGB, "JPEG", quality=95)
_PNG = encode(_RGB, "PNG")
_WEBP = encode(_RGB, "WEBP", lossless=True)
_LINE = np.arange(10_000, dtype=np.uint8)[None, :, None].repeat(3, axis=2)


def _good() -> list[Case]:
    gray = np.repeat(GRAY[..., None], 3, axis=2)
    cases = [
        Case("plain.jpg", content(_JPEG), PHOTO, tolerance=8),
        Case("plain.png", content(_PNG), PHOTO),
        Case("plain.webp", content(_WEBP), PHOTO),
        Case("plain.bmp", picture(_RGB, "BMP"), PHOTO),
        Case("plain.tif", picture(_RGB, "TIFF"), PHOTO),
        Case("plain.ppm", picture(_RGB, "PPM"), PHOTO),
        Case("progressive.jpg", picture(_RGB, "JPEG", quality=95, progressive=True), PHOTO, tolerance=8),
        Case("png_named.jpg", content(_PNG), PHOTO),
        Case("trailing_bytes.jpg", content(_JPEG + b"\0\0trailer"), PHOTO, tolerance=8),
        Case("gray_16_bit.png", content(png_16_bits(_CUBE[..., 1], 0)), gray),
        Case("rgb_16_bit.png", content(png_16_bits(_CUBE, 2)), PHOTO),
        Case("gray_16_bit.tif", picture(Image.fromarray(_CUBE[..., 1]), "TIFF"), gray),
        Case("cmyk.jpg", picture(_CMYK, "JPEG", quality=100), as_rgb(_CMYK), tolerance=8),
        Case("ycck.jpg", content(_ycck()), as_rgb(Image.open(io.BytesIO(_ycck()))), tolerance=8),
        Case("palette.png", picture(_PALETTE, "PNG"), as_rgb(_PALETTE)),
        Case("palette_transparent.png", picture(_PALETTE, "PNG", transparency=0), as_rgb(_PALETTE)),
        Case("gray.png", picture(Image.fromarray(GRAY), "PNG"), gray),
        Case("gray.jpg", picture(Image.fromarray(GRAY), "JPEG", quality=95), gray, tolerance=4),
        Case("gray_alpha.png", picture(Image.fromarray(np.dstack([GRAY, GRAY // 2])), "PNG"), gray),
        Case("rgba.png", picture(Image.fromarray(np.dstack([PHOTO, GRAY // 2])), "PNG"), PHOTO),
        Case("one_bit.png", picture(Image.fromarray(GRAY > 100), "PNG"), np.where(gray > 100, 255, 0).astype(np.uint8)),
        Case("one_bit.tif", picture(Image.fromarray(GRAY > 100), "TIFF"), np.where(gray > 100, 255, 0).astype("u1")),
        Case("animated.gif", picture(Image.fromarray(GRAY), "GIF", save_all=True, append_images=_FRAMES), gray),
        Case("animated.png", picture(_RGB, "PNG", save_all=True, append_images=_FRAMES), PHOTO),
        Case("animated.webp", picture(_RGB, "WEBP", lossless=True, save_all=True, append_images=_FRAMES), PHOTO),
        Case("pages.tif", picture(_RGB, "TIFF", save_all=True, append_images=_FRAMES), PHOTO),
        Case("profile.png", picture(_RGB, "PNG", icc_profile=_PROFILE), PHOTO),
        Case("profile.jpg", picture(_RGB, "JPEG", quality=95, icc_profile=_PROFILE), PHOTO, tolerance=8),
        Case("one_pixel.png", picture(Image.fromarray(PHOTO[:1, :1]), "PNG"), PHOTO[:1, :1]),
        Case("line.png", picture(Image.fromarray(_LINE), "PNG"), _LINE),
        Case("column.png", picture(Image.fromarray(_LINE.transpose(1, 0, 2)), "PNG"), _LINE.transpose(1, 0, 2)),
    ]
    for number in range(1, 9):
        options = dict(exif=_exif(number), quality=95)
        jpeg = picture(_RGB, "JPEG", **options)
        cases.append(Case(f"exif_{number}.jpg", jpeg, PHOTO, tolerance=8, turned=_upright(number)))
    cases.append(Case("exif_6.png", picture(_RGB, "PNG", exif=_exif(6)), PHOTO, turned=_upright(6)))
    cases.append(Case("exif_6.webp", picture(_RGB, "WEBP", lossless=True, exif=_exif(6)), PHOTO, turned=_upright(6)))
    return cases


def _names() -> list[Case]:
    names = {
        "script": "фото 写真 صورة.png",
        "spaces": "  two  spaces .png",
        "line_break": "line\nbreak.png",
        "not_utf8": os.fsdecode(b"caf\xe9.png"),
        "longest": "n" * 251 + ".png",
        "percent": "100%s %d {x} \\.png",
        "quote": "quo'te\".PNG",
    }
    return [Case(f"name_{case}", content(_PNG), PHOTO, file_name=name) for case, name in names.items()]


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: os.symlink(target, path)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def _broken() -> list[Case]:
    floats = Image.fromarray(np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH))
    eps = encode(_RGB, "EPS")
    return [
        Case("empty.jpg", content(b""), reason="empty"),
        Case("text.jpg", content(b"this is a text, not a photo\n" * 9), reason="no image"),
        Case("page.png", content(b"<html>404 not found</html>"), reason="no image"),
        Case("postscript.jpg", content(eps), reason="no image"),
        Case("jpeg_cut_in_scan.jpg", content(_JPEG[:-200]), reason="truncated"),
        Case("jpeg_cut_in_header.jpg", content(_JPEG[:100]), reason="header is incomplete"),
        Case("jpeg_void.jpg", content(b"\xff\xd8\xff\xff\xd9"), reason="header is incomplete"),
        Case("png_cut_in_data.png", content(_PNG[:-30]), reason="."),
        Case("png_cut_in_header.png", content(_PNG[:20]), reason="."),
        Case("png_garbled.png", content(_PNG[:60] + b"\x55" * (len(_PNG) - 72) + _PNG[-12:]), reason="."),
        Case("webp_cut.webp", content(_WEBP[: len(_WEBP) // 2]), reason="."),
        Case("webp_cut_in_header.webp", content(_WEBP[:16]), reason="header is incomplete"),
        Case("gif_cut.gif", content(encode(Image.fromarray(GRAY), "GIF")[:-40]), reason="truncated"),
        Case("gif_without_picture.gif", content(encode(Image.fromarray(GRAY), "GIF")[:13] + b";"), reason="."),
        Case("bmp_cut.bmp", content(encode(_RGB, "BMP")[:500]), reason="truncated"),
        Case("ppm_cut.ppm", content(encode(_RGB, "PPM")[:500]), reason="truncated"),
        Case("tiff_cut.tif", content(encode(_RGB, "TIFF")[:200]), reason="."),
        Case("tiff_float.tif", picture(floats, "TIFF"), reason="floating-point"),
        Case("link_broken.jpg", _link_to("nowhere.jpg"), reason="link to nowhere.jpg, which does not exist"),
        Case("link_loop.jpg", _link_to("link_loop.jpg"), reason="(?i)symbolic links"),
        Case("folder.jpg", lambda path: path.mkdir(), reason="a folder", is_listed=False),
        Case("pipe.jpg", lambda path: os.mkfifo(path), reason="a pipe"),
        Case("socket.jpg", _socket, reason="a socket"),
        Case("device.jpg", _link_to("/dev/zero"), reason="a device"),
        Case("deleted.jpg", lambda path: None, reason="No such file", is_listed=False),
    ]


def _bombs() -> list[Case]:
    side, pixels = 100_000, r"100000 × 100000 pixels, more than max_pixels=178,956,970"
    wide = "60000 × 60000 pixels"  # sides of JPEG and GIF have 16 bits
    return [
        Case("bomb.png", content(png(side, side, bytes(10**6))), reason=pixels),
        Case("bomb_palette.png", content(png(side, side, bytes(10**6), 1, 0)), reason=pixels),
        Case("bomb.tif", content(tiff_that_declares(side, side)), reason=pixels),
        Case("bomb.jpg", content(that_declares("JPEG", b"\xff\xc0", ">HH", 60_000, 60_000)), reason=wide),
        Case("bomb.gif", content(that_declares("GIF", 6, "<HH", 60_000, 60_000)), reason=wide),
        Case("bomb.webp", content(webp_that_declares(16_384, 16_384)), reason="16384 × 16384 pixels"),
        Case("bomb.bmp", content(that_declares("BMP", 18, "<ii", side, side)), reason=pixels),
        Case("bomb.ppm", content(b"P6 100000 100000 255\n" + bytes(1000)), reason=pixels),
    ]


GOOD = [*_good(), *_names()]
BOMBS = _bombs()
BROKEN = [*_broken(), *BOMBS]
EVERY = [*GOOD, *BROKEN]


def transposed_by_pil(path: Path) -> NDArray[np.uint8]:
    """PIL's own reading of a file, upright."""
    with Image.open(path) as image:
        return as_rgb(ImageOps.exif_transpose(image))
