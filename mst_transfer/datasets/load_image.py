"""Loading the images and masks of mmdet's and mmseg's pipelines, with a check of each file.

Good files give exactly what mmcv and mmseg make of them. A file that cannot be read is skipped while training: the
pipeline returns None, and the data set takes another sample; it is named in a list and counted. Anywhere else it is an
error that names the file, since a score must be of all images.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine import fileio
from numpy.typing import NDArray

from mst_transfer.files.image_files import (
    MAX_PIXELS,
    UnreadableImageError,
    check_by_decoding,
    check_complete,
    check_pixels,
    open_with_pil,
    read_image_file,
    shown_path,
)
from mst_transfer.files.label_maps import check_label_values
from mst_transfer.registry import TRANSFORMS
from mst_transfer.runs.unreadable_images import MAX_IN_A_ROW, TooManyUnreadableError, append_to_list, examples

MAX_ASPECT_RATIO = 100.0
_LOCAL = (None, {"backend": "local"})


@dataclass
class OnUnreadable:
    """What becomes of a file that cannot be read."""

    skip: bool = False  # leave the sample out, as training may; else raise
    list_file: str | None = None  # where skipped files are named
    _named: set[str] = field(default_factory=set)
    _in_a_row: list[tuple[str, str]] = field(default_factory=list)

    def attempt(self, path: str, work: Callable[[], dict]) -> dict | None:
        """What ``work`` returns; None for a file that it cannot read and that is left out.

        Raises:
            UnreadableImageError: it must not be left out.
            TooManyUnreadableError: it is one of very many in a row.
        """
        try:
            results = work()
            self._in_a_row.clear()
            return results
        except UnreadableImageError as error:
            name, reason = shown_path(path), str(error)
            if not self.skip:
                raise UnreadableImageError(
                    f"{name} cannot be read: {reason}. Only training may leave out an image; a score must be of all. "
                    "Next step: put the file in order, or take it out of the annotations (mst check CONFIG looks for "
                    "more)"
                ) from error
        if name not in self._named and self.list_file is not None:
            append_to_list(self.list_file, name, reason)
        self._named.add(name)
        self._in_a_row.append((name, reason))
        if len(self._in_a_row) >= MAX_IN_A_ROW:
            raise TooManyUnreadableError(
                f"{MAX_IN_A_ROW} samples in a row cannot be read: {examples(dict(self._in_a_row))}. Next step: see "
                "whether the disk is there and the data set complete; mst check CONFIG"
            )
        return None


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with checks before and after decoding; see the head of this module.

    Args:
        *args, **kwargs: of mmcv's. A file that fails is treated as said here, whatever ``ignore_empty`` is.
        max_pixels: width × height that a header may declare.
        max_aspect_ratio: longer side by shorter side; resizing would leave nothing of the shorter one.
        skip_unreadable: leave out samples that cannot be read; only for training.
        list_file: where they are named.
    """

    def __init__(
        self,
        *args: Any,
        max_pixels: int = MAX_PIXELS,
        max_aspect_ratio: float = MAX_ASPECT_RATIO,
        skip_unreadable: bool = False,
        list_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.max_pixels, self.max_aspect_ratio = max_pixels, max_aspect_ratio
        self.on_unreadable = OnUnreadable(skip_unreadable, list_file)

    @classmethod
    def like(cls, loader: LoadImageFromFile, **checks: Any) -> "LoadImage":
        """Does what ``loader`` does, with checks."""
        checked = cls(**checks)
        checked.__dict__.update(vars(loader))
        return checked

    def transform(self, results: dict) -> dict | None:
        """Adds ``img``, ``img_shape`` and ``ori_shape``; None for a sample to be left out.

        Raises:
            UnreadableImageError: the file cannot be read, and must not be left out.
        """
        return self.on_unreadable.attempt(results["img_path"], lambda: self._load(results))

    def _load(self, results: dict) -> dict:
        image = self.read(results["img_path"])
        self._check_size(image, results)
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def read(self, path: str) -> NDArray[Any]:
        """The pixels as ``mmcv.imfrombytes`` gives them.

        Raises:
            UnreadableImageError: says why not.
            MemoryError: the image is allowed, but does not fit into memory.
        """
        known = self.imdecode_backend != "tifffile"
        data = read_content(self, path, self.max_pixels, any_format=not known)
        if known:
            check_complete(data)
        try:
            image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
        except MemoryError:
            raise
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise MemoryError(f"no memory for image {shown_path(path)}") from error
            raise UnreadableImageError(f"OpenCV cannot decode it ({error.err})") from error
        except Exception as error:  # decoders raise nearly every type on broken files
            raise UnreadableImageError(f"{self.imdecode_backend} cannot decode it ({error})") from error
        if image is None:
            check_by_decoding(data)
            raise UnreadableImageError("OpenCV cannot decode it")
        return image

    def _check_size(self, image: NDArray[Any], results: dict) -> None:
        height, width = image.shape[:2]
        if max(height, width) > self.max_aspect_ratio * min(height, width):
            raise UnreadableImageError(
                f"it is {width} × {height}: one side is more than max_aspect_ratio={self.max_aspect_ratio:g} times the "
                "other"
            )
        said = results.get("width"), results.get("height")
        if None not in said and said != (width, height):
            raise UnreadableImageError(
                f"it is {width} × {height}, but its annotations say {said[0]} × {said[1]}: boxes would lie elsewhere"
            )


class LoadSegMap(BaseTransform):
    """mmseg's ``LoadAnnotations`` with checks of the mask's file, channels, values and size; see ``LoadImage``."""

    def __init__(
        self, loader: Any, max_pixels: int = MAX_PIXELS, skip_unreadable: bool = False, list_file: str | None = None
    ) -> None:
        self.loader, self.max_pixels = loader, max_pixels
        self.on_unreadable = OnUnreadable(skip_unreadable, list_file)

    def transform(self, results: dict) -> dict | None:
        """Adds ``gt_seg_map``; None for a sample to be left out.

        Raises:
            UnreadableImageError: the mask cannot be used, and the sample must not be left out.
        """
        return self.on_unreadable.attempt(results["seg_map_path"], lambda: self._load(results))

    def _load(self, results: dict) -> dict:
        self._check_file(results["seg_map_path"])
        try:
            loaded: dict = self.loader(results)
        except (OSError, SyntaxError, ValueError, AttributeError, cv2.error) as error:
            raise UnreadableImageError(f"it is truncated or broken ({error})") from error
        self._check_mask(results)
        return loaded

    def _check_file(self, path: str) -> None:
        """mmseg takes every value modulo 256."""
        data = read_content(self.loader, path, self.max_pixels)
        with open_with_pil(io.BytesIO(data)) as picture:
            if picture.mode not in ("L", "P", "1"):
                try:
                    check_label_values(np.asarray(picture))
                except (OSError, SyntaxError) as error:
                    raise UnreadableImageError(f"it is truncated or broken ({error})") from error

    def _check_mask(self, results: dict) -> None:
        mask = results["gt_seg_map"]
        if mask.ndim != 2:
            raise UnreadableImageError(
                f"it was read with {mask.shape[-1]} channels; a mask with a palette needs imdecode_backend='pillow'"
            )
        if self.on_unreadable.skip:  # training, which changes image and mask together from here on
            height, width = results.get("img", mask).shape[:2]
        else:  # tests read masks behind Resize, and predictions return to the file's size
            height, width = results.get("ori_shape", mask.shape)[:2]
        if (height, width) != mask.shape:
            raise UnreadableImageError(f"it is {mask.shape[1]} × {mask.shape[0]}, its image {width} × {height}")


def read_content(loader: Any, path: str, max_pixels: int, *, any_format: bool = False) -> bytes:
    """The content of an image file, local or of the remote storage that a transform is set to.

    Raises:
        UnreadableImageError: see ``mst_transfer.files.image_files.read_image_file``.
    """
    client = getattr(loader, "file_client_args", None)
    if client is None and getattr(loader, "backend_args", None) in _LOCAL and "://" not in path:
        return read_image_file(path, max_pixels, any_format=any_format)
    if client is not None:
        data: bytes = fileio.FileClient.infer_client(client, path).get(path)
    else:
        data = fileio.get(path, backend_args=loader.backend_args)
    if not any_format:
        check_pixels(io.BytesIO(data), max_pixels)
    return data
