"""Labelled photographs in class folders, the two views of them that DINO's evaluations use, and subsets of labels."""

import copy
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mst_transfer.files.image_crops import Image, draw_box, resize, resized_crop
from mst_transfer.files.image_files import UnreadableImageError
from mst_transfer.files.image_folder import find_images, read_image
from mst_transfer.runs.counter_random import derive_key, sample_generator, uniform

_STREAM_LINEAR, _STREAM_LABELS = 2, 0x1ABE1
_NUM_DRAWS = 23  # those of a box (0-21), and the flip
_MAX_ASPECT_RATIO = 16
_CROP_SCALE, _CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def central_view(image: Image, size: int) -> Image:
    """Shorter side to ``size * 256 / 224`` (bicubic, antialiased), then the central square.

    Of an image more than 16 times as long as wide only the middle is resized: the whole of a line of pixels would
    become gigabytes. uint8 RGB [H, W, 3] → [size, size, 3].
    """
    limit = _MAX_ASPECT_RATIO * min(image.shape[:2])
    top, left = (max(side - limit, 0) // 2 for side in image.shape[:2])
    image = image[top : top + limit, left : left + limit]
    height, width = image.shape[:2]
    short = max(size, math.floor(size * 256 / 224))
    target = tuple(short * side // min(height, width) for side in (height, width))
    image = resize(np.ascontiguousarray(image), *target)
    top, left = round((target[0] - size) / 2), round((target[1] - size) / 2)
    return image[top : top + size, left : left + size]


def random_view(image: Image, size: int, draws: list[float]) -> Image:
    """Random resized crop (8 to 100 % of the area) and a flip every other time, from 23 uniform draws.

    DINO's linear protocol; resized bicubically, where torchvision's default is bilinear.
    """
    top, left, height, width = draw_box(draws, image.shape[0], image.shape[1], _CROP_SCALE, _CROP_RATIO)
    crop = resized_crop(image, top, left, height, width, size)
    return cv2.flip(crop, 1) if draws[22] < 0.5 else crop


class LabelledImages(Dataset):
    """Images of ``root/<class>/**``; classes are the sorted names of the folders, as in torchvision's ImageFolder.

    Args:
        root: folder of class folders.
        size: side of the views in pixels.
        augment: random views, a function of (seed, epoch, index), instead of the central one.
        resize: ``crop`` as DINO (shorter side to size * 256 / 224, central square); ``squash`` to ``size`` directly,
            for images that are square already, such as small ones.
        seed: of the random views.

    Attributes:
        classes: their names. paths, labels: of each image, in the order of its index.

    Raises:
        FileNotFoundError: no such folder, a class without an image, or no class.
        ValueError: ``resize`` is not known.
    """

    def __init__(
        self, root: str | os.PathLike[str], size: int, *, augment: bool = False, resize: str = "crop", seed: int = 0
    ):
        if resize not in ("crop", "squash"):
            raise ValueError(f"resize={resize!r} is not known: choose 'crop' or 'squash'")
        root = os.fspath(root)
        if not os.path.isdir(root):
            raise FileNotFoundError(f"there is no folder {root!r} of class folders, one a class, with their images")
        folders = (name for name in os.listdir(root) if os.path.isdir(os.path.join(root, name)))
        self.classes = sorted(name for name in folders if not name.startswith("."))
        if not self.classes:
            raise FileNotFoundError(
                f"{root!r} holds no class folder: put the images of each class in a folder of its own there"
            )
        self.root = root
        self.size, self.augment, self.resize, self.seed = size, augment, resize, seed
        self.paths: list[str] = []
        self.labels: list[int] = []
        for label, name in enumerate(self.classes):
            found = find_images(os.path.join(root, name))
            self.paths += found
            self.labels += [label] * len(found)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which random views are drawn; takes effect when workers start next."""
        self.epoch = epoch

    def select(self, indices: Sequence[int]) -> "LabelledImages":
        """The same with these images alone, in this order."""
        chosen = copy.copy(self)
        chosen.paths = [self.paths[index] for index in indices]
        chosen.labels = [self.labels[index] for index in indices]
        return chosen

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """uint8 [3, size, size], label, index.

        Raises:
            UnreadableImageError: an evaluation must not leave out an image: its score would be of another set.
        """
        try:
            image = read_image(self.paths[index])
        except UnreadableImageError as error:
            raise UnreadableImageError(
                f"{error}. A score must be of all images: put the file in order, or take it away from {self.root} and "
                "say so beside the score"
            ) from error
        if self.augment:
            draws = sample_generator(self.seed, self.epoch, index, _STREAM_LINEAR).random(_NUM_DRAWS).tolist()
            view = random_view(image, self.size, draws)
        elif self.resize == "squash":
            view = resize(image, self.size, self.size)
        else:
            view = central_view(image, self.size)
        return torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1), self.labels[index], index


def open_pair(
    train_root: str | os.PathLike[str], val_root: str | os.PathLike[str], size: int, resize: str = "crop"
) -> tuple[LabelledImages, LabelledImages]:
    """Opens a training and a validation set with central views.

    Errors are those of ``LabelledImages``, and a ValueError if their classes differ.
    """
    train, val = (LabelledImages(root, size, resize=resize) for root in (train_root, val_root))
    if train.classes != val.classes:
        names = sorted(set(train.classes) ^ set(val.classes))[:5]
        raise ValueError(f"the classes of {train.root} and {val.root} differ, e.g. in {names}: both need the same")
    return train, val


def load(images: Dataset, num_workers: int, **batches: Any) -> DataLoader:
    """Makes a loader whose processes take one thread each; ``batches``: ``batch_size``, or ``batch_sampler``."""
    return DataLoader(images, num_workers=num_workers, worker_init_fn=_keep_opencv_to_one_thread, **batches)


def _keep_opencv_to_one_thread(worker_id: int) -> None:
    """torch sets its own to one in its loading processes."""
    cv2.setNumThreads(0)


def label_subset(num_images: int, labels: int | str, seed: int) -> NDArray:
    """Numbers of the images that keep their labels, int64: the same for every checkpoint and protocol.

    A smaller subset of a seed begins a larger one.

    Raises:
        ValueError: ``labels`` is no number in 1 … ``num_images``, and no share of them such as ``"10%"`` (rounded up).
    """
    number = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(%?)", str(labels))
    share = float(number[1]) * (num_images if number[2] else 100) / 100 if number else 0.0  # 100% is exact
    if number is None or not 0 < share <= num_images or not (number[2] or share.is_integer()):
        raise ValueError(
            f"labels = {labels!r} must be a number of training images in 1 … {num_images} (so many there are), or a "
            "share of them above 0% up to 100%, such as 10%"
        )
    draws = uniform(derive_key(seed, _STREAM_LABELS), torch.arange(num_images), 1)[:, 0]
    return draws.argsort(stable=True)[: max(1, math.ceil(round(share, 6)))].numpy()
