"""Photographs with label maps, seen as h * w tokens each, and how well scores of C classes agree with the maps."""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mst_transfer.files.image_crops import resize
from mst_transfer.files.image_files import UnreadableImageError, shown_path, upright_size
from mst_transfer.files.image_folder import read_image
from mst_transfer.files.label_maps import read_label_map

Path: TypeAlias = str | os.PathLike[str]
LabelMap: TypeAlias = NDArray[np.uint8]
LabelSource: TypeAlias = Path | Callable[[int], LabelMap]  # a file, or what draws the map from the image's index
_OF_ALL = "A score must be of all images: put the file in order, or leave it out for every checkpoint and say so"


@dataclass
class DenseImages(Dataset):
    """Images with their label maps; every checkpoint sees the same pixels.

    Raises:
        ValueError: a number is out of range. UnreadableImageError, which is one, from all that reads a file: names it.
    """

    pairs: Sequence[tuple[Path, LabelSource]]  # the map has the size of the image's file
    num_classes: int  # C; a map holds 0 … C - 1, and ``ignore_index``, which counts nowhere
    multiple: int  # in pixels; sides are resized (bicubic, antialiased) to the nearest multiple of it
    max_side: int | None = None  # in pixels; larger images are scaled down to it
    ignore_index: int = 255
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict, init=False, repr=False)  # by image

    def __post_init__(self) -> None:
        if not self.pairs or not 1 <= self.num_classes <= 255 or not 1 <= self.multiple <= (self.max_side or 2**31):
            raise ValueError(
                f"{len(self.pairs)} images, num_classes = {self.num_classes}, multiple = {self.multiple}, max_side = "
                f"{self.max_side}: at least one image, 1 … 255 classes and 1 <= multiple <= max_side are needed"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: tuple[int, int, tuple[int, int]]) -> tuple[int, Tensor, NDArray[np.float32]]:
        """(place, index, (h, w)) → place, view uint8 [3, H, W], soft labels."""
        place, index, grid = item
        try:
            image = resize(read_image(self.pairs[index][0], exif_orientation=True), *self.view_size(index))
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{error}. {_OF_ALL}") from error
        return place, torch.from_numpy(image).permute(2, 0, 1).contiguous(), self.soft_labels(index, grid)

    def file_size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels of an image as its header declares them, turned as EXIF says."""
        if index not in self._sizes:
            try:
                self._sizes[index] = upright_size(self.pairs[index][0])
            except UnreadableImageError as error:
                raise UnreadableImageError(f"{error}. {_OF_ALL}") from error
        return self._sizes[index]

    def view_size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels of an image's view; of two nearest multiples the smaller one."""
        sides, most = self.file_size(index), self.max_side or 2**31
        unit = self.multiple * max(1.0, max(sides) / most)
        height, width = (max(1, min(int(np.ceil(side / unit - 0.5)), most // self.multiple)) for side in sides)
        return height * self.multiple, width * self.multiple

    def label_map(self, index: int) -> LabelMap:
        """uint8, of the size of the image's file, and with no other values than classes and ``ignore_index``."""
        path, source = self.pairs[index]
        labels, (height, width) = source(index) if callable(source) else read_label_map(source), self.file_size(index)
        strange = sorted({*np.unique(labels).tolist()} - {*range(self.num_classes), self.ignore_index})
        if labels.shape != (height, width) or strange:
            raise UnreadableImageError(
                f"mask {shown_path(path if callable(source) else source)} of shape {list(labels.shape)} holds "
                f"{strange[:5] or 'classes'}: allowed are the shape of its image, [{height}, {width}], classes "
                f"0 … {self.num_classes - 1}, and {self.ignore_index} for no class"
            )
        return labels

    def soft_labels(self, index: int, grid: tuple[int, int]) -> NDArray[np.float32]:
        """Share of each class in the known area of each token, [h * w, C]; rows of nothing but ignored pixels are 0."""
        labels = self.label_map(index)
        areas = np.zeros((*grid, self.num_classes), np.float32)
        for value in np.unique(labels[labels != self.ignore_index]):  # of a border's pixel each token has its part
            areas[..., value] = cv2.resize((labels == value).astype("f4"), grid[::-1], interpolation=cv2.INTER_AREA)
        known = areas.sum(axis=2, keepdims=True)
        return np.divide(areas, known, out=areas, where=known > 0).reshape(-1, self.num_classes)

    def compare(
        self, outputs: Iterable[tuple[int, Tensor]], classes: NDArray, keep_maps: Collection[int] = ()
    ) -> tuple[NDArray[np.int64], dict[int, LabelMap]]:
        """Compares class scores with the label maps, at their resolution.

        (index, scores [h, w, K] of ``classes`` [K]) of n images → pixels [n, C, 3] in the intersection, predicted and
        true (ignored ones in none of them), and the predicted maps of ``keep_maps``. Scores are up-sampled bilinearly.
        """
        counts, maps = [], {}
        for index, scores in outputs:
            labels = self.label_map(index)
            upsampled = F.interpolate(scores.permute(2, 0, 1)[None], labels.shape, mode="bilinear", align_corners=False)
            predicted = classes.astype(np.uint8)[upsampled[0].argmax(dim=0).cpu().numpy()]
            known = labels != self.ignore_index
            pixels = labels[known & (predicted == labels)], predicted[known], labels[known]
            counts.append(np.stack([np.bincount(part, minlength=self.num_classes) for part in pixels], axis=1))
            if index in keep_maps:
                maps[index] = predicted
        return np.stack(counts), maps


def mean_iou(counts: NDArray[np.int64]) -> float:
    """Mean IoU in per cent of the sum of counts [n, C, 3], over classes with truth in any image; NaN: no truth."""
    both, predicted, true = counts.sum(axis=0)[counts[..., 2].any(axis=0)].T
    return 100 * float((both / (predicted + true - both)).mean()) if len(true) else float("nan")
