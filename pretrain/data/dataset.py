"""Multi-crop views of an image folder."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.logging import print_log
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from mst_transfer.files.image_files import IMAGE_EXTENSIONS, MAX_PIXELS, UnreadableImageError, shown_path
from mst_transfer.runs.unreadable_images import MAX_IN_A_ROW, TooManyUnreadableError, append_to_list, read_list

from pretrain.data.augment import CropPlan, MultiCropOptions, draw_crops, render_crops
from mst_transfer.runs.counter_random import derive_key
from mst_transfer.files.image_folder import read_image
from mst_transfer.files.photos import Photo, Photos
from mst_transfer.files.shard_cache import CACHE_GB
from mst_transfer.files.image_crops import Image
from pretrain.data.reduced_decoding import PlannedReduction
from pretrain.registry import DATASETS


@DATASETS.register_module()
class MultiCropDataset(Dataset):
    """Two global and N local augmented crops of each image of any nested folder; no labels.

    Every random number of a sample comes from (seed, epoch, index): the same sample has the same bytes
    whatever the number of workers or ranks, and after resuming.

    Args:
        data_root: a folder of images, or one of shards with an index (``mst shard``), an address of such a one
            (``s3://…``), or several whose images are put together.
        seed: base of all random draws.
        extensions: endings of the files taken for images, in any case.
        max_images: take only so many, evenly spread over the sorted list; None takes all.
        exif_orientation: turn images as their EXIF tag says; DINO's loader does not.
        max_pixels: width × height that a file may declare; one that declares more is unreadable, whatever its content.
        cache_gb, cache_dir: size, and folder if not the usual one, of the cache of shards that have an address.
        shards_at_once: an epoch goes through so many shards at a time, drawn at random, and then the next; for a cache
            that does not hold all. None: any image may follow any other.
        reduced_decoding: decode JPEG files at 1/2, 1/4 or 1/8 of their size where every crop of the sample is at most
            1/3, 1/6 or 1/12 of its box (see ``pretrain.data.reduced_decoding``): large photographs take half the time.
            Off by default, as DINO decodes whole: boxes are rounded down to multiples of 2, 4 or 8 pixels, and crops
            differ from those of the rounded boxes by 0.2 to 0.4 grey levels in the mean, the worst by 2. Without effect
            on smaller photographs, other formats, and with ``exif_orientation``.
        augmentation: any field of ``pretrain.data.augment.MultiCropOptions``, e.g. ``num_local_crops=8``,
            ``global_size=224``, ``local_scale=(0.05, 0.4)``, ``global_blur_probs=(1.0, 0.1)``.

    Attributes:
        paths: names of the images by their indices.
        unreadable: the files that this process could not decode. Another image, chosen by (seed, epoch, index), takes
            the place of each.
        list_file: where processes name them, once each; None for the log. A run sets it.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: an option is unknown or out of range, an index cannot be used, or the cache is too small.
    """

    def __init__(
        self,
        data_root: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        seed: int = 0,
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        max_images: int | None = None,
        exif_orientation: bool = False,
        max_pixels: int = MAX_PIXELS,
        cache_gb: float = CACHE_GB,
        cache_dir: str | None = None,
        shards_at_once: int | None = None,
        reduced_decoding: bool = False,
        **augmentation: Any,
    ) -> None:
        self.options = MultiCropOptions.from_kwargs(**augmentation)
        if max_pixels < 1:
            raise ValueError(f"max_pixels={max_pixels} is not allowed: at least 1.")
        if max_images is not None and max_images < 1:
            raise ValueError(f"max_images={max_images} is not allowed: at least 1, or None for all images.")
        self.seed = seed
        self.exif_orientation, self.max_pixels = exif_orientation, max_pixels
        self.reduced_decoding = reduced_decoding
        self.paths = Photos(data_root, extensions, max_images, cache_gb, cache_dir)
        self.shards_at_once = shards_at_once
        fit = self.paths.shards_in_cache
        if fit is not None and not 1 <= (shards_at_once or 0) <= fit // 2:
            raise ValueError(
                f"cache_gb={cache_gb:g} holds {fit} shards at once, not all. Next step: raise it to hold all; or set "
                f"train_dataloader.dataset.shards_at_once, now {shards_at_once}, to 1 … {fit // 2}: half of what it holds"
            )
        self.unreadable: list[str] = []
        self.list_file: str | None = None
        self._is_worker_ready = False

    def __len__(self) -> int:
        return len(self.paths)

    def permute(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """The order of an epoch."""
        return self.paths.permute(generator, self.shards_at_once)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        """Crops of a sample.

        Args:
            key: (epoch, index); an index alone means epoch 0.

        Returns:
            ``global_crops`` uint8 [2, 3, S, S], ``local_crops`` uint8 [N, 3, s, s] and ``index`` int.
        """
        if not self._is_worker_ready:
            self._is_worker_ready = True
            if get_worker_info() is not None:
                worker_init()
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        image, plans = self._read(epoch, index)
        size = self.options.local_size
        global_crops = torch.from_numpy(render_crops(image, plans[:2]))
        local_crops: Tensor = torch.empty((0, 3, size, size), dtype=torch.uint8)
        if len(plans) > 2:
            local_crops = torch.from_numpy(render_crops(image, plans[2:]))
        return {"global_crops": global_crops, "local_crops": local_crops, "index": index}

    def _read(self, epoch: int, index: int) -> tuple[Image, list[CropPlan]]:
        """File ``index`` or, as long as none can be read, others in its place; and the plans of its crops."""

        def draw(height: int, width: int) -> list[CropPlan]:
            return draw_crops(self.options, height, width, seed=self.seed, epoch=epoch, index=index)

        number = index
        for attempt in range(MAX_IN_A_ROW):
            planned, photo = PlannedReduction(draw), Photo(self.paths, number)
            try:
                image = read_image(
                    photo,
                    self.exif_orientation,
                    self.max_pixels,
                    planned if self.reduced_decoding else None,
                    Photo.read,
                )
                return image, planned.plans_for(image)
            except UnreadableImageError as error:
                self._note(os.fspath(photo), error)
            number = derive_key(self.seed, epoch, index, attempt) % len(self.paths)
        raise TooManyUnreadableError(
            f"{MAX_IN_A_ROW} files tried in the place of '{shown_path(self.paths[index])}' could not be read, "
            f"among them {', '.join(map(shown_path, self.unreadable[:3]))}. Check that the data set is complete."
        )

    def _note(self, path: str, error: UnreadableImageError) -> None:
        if path in self.unreadable:
            return
        self.unreadable.append(path)
        if self.list_file is None:
            print_log(f"{error} Another image takes its place.", logger="current", level=logging.WARNING)
        elif shown_path(path) not in read_list(self.list_file):
            append_to_list(self.list_file, shown_path(path), str(error).partition("': ")[2] or str(error))


def worker_init(worker_id: int = 0) -> None:
    """Gives a data-loading worker one thread: the workers are the parallelism. Works with fork and spawn."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
