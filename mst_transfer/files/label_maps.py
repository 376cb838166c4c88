"""Label maps: files of one channel whose pixels are the numbers of classes."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.files.image_files import MAX_PIXELS, UnreadableImageError, open_image_file, shown_path


def check_label_values(values: NDArray[Any]) -> None:
    """A label map has one channel of whole numbers from 0 to 255.

    Raises:
        UnreadableImageError: colours, or numbers beyond.
    """
    if values.ndim != 2:
        raise UnreadableImageError(f"it has {values.shape[-1]} channels: colours instead of class ids?")
    if values.dtype.kind == "f":
        raise UnreadableImageError("it holds floating-point numbers instead of class ids")
    if values.size and (values.min() < 0 or values.max() > 255):
        raise UnreadableImageError(
            f"it holds values from {values.min()} to {values.max()}; class ids go from 0 to 255, and mmseg would take "
            "them modulo 256"
        )


def read_label_map(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Reads a map of 1, 8 or 16 bits, with a palette or without: uint8 [H, W].

    Raises:
        UnreadableImageError: it cannot be read, has several channels, or other numbers than 0 to 255; names the file.
    """
    try:
        with open_image_file(path, max_pixels) as image:
            values: NDArray[Any] = np.asarray(image)
        check_label_values(values)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly every type on broken files
        raise UnreadableImageError(
            f"mask {shown_path(path)} cannot be read ({error}); write it as one channel of 8 bits, whose value is the "
            "number of the class"
        ) from error
    return values.astype(np.uint8, copy=False)
