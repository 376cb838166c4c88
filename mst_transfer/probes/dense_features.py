"""Patch tokens of many images, computed once, in memory or in a file that goes with the process."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.files.image_files import shown_path
from mst_transfer.probes.attention import token_grid
from mst_transfer.probes.backbones import FrozenBackbone
from mst_transfer.probes.dense_images import DenseImages, Path
from mst_transfer.probes.features import check_features, patch_tokens
from mst_transfer.probes.labelled_images import load
from mst_transfer.runs.progress import Progress


@dataclass(frozen=True)
class DenseFeatures:
    """Tokens of n images, one image after the other, and the soft labels of each."""

    indices: NDArray[np.int64]  # [n], in the data set
    tokens: NDArray  # [T, D]
    soft_labels: NDArray[np.float32]  # [T, C], rows sum to 1, or to 0 where no pixel has a class
    offsets: NDArray[np.int64]  # [n + 1], where each image begins
    grids: NDArray[np.int64]  # [n, 2], h and w

    def select(self, images: Sequence[int] | NDArray) -> NDArray[np.int64]:
        """Numbers of the labelled tokens of the images at these of the n places, in their order."""
        rows = np.concatenate([np.arange(0), *(np.arange(*self.offsets[image : image + 2]) for image in images)])
        return rows[self.soft_labels[rows].any(axis=1)]

    def image(self, image: int) -> NDArray:
        """The tokens [h, w, D] of one."""
        return self.tokens[slice(*self.offsets[image : image + 2])].reshape(*self.grids[image], -1)


@torch.no_grad()
def extract_tokens(
    frozen: FrozenBackbone,
    dataset: DenseImages,
    indices: Sequence[int],
    num_blocks: int = 1,
    *,
    store_path: Path | None = None,
    dtype: DTypeLike = "f4",
    batch_size: int = 8,
    num_workers: int = 0,
    title: str = "images:",
) -> DenseFeatures:
    """Computes tokens and soft labels of the images of these indices.

    Args:
        num_blocks: see ``mst_transfer.probes.features.patch_tokens``.
        store_path: folder for a file without a name, which the system removes when the process ends; None: in memory.
        batch_size, num_workers: of loading; a batch holds images of one size.
        dtype, title: of the stored tokens, of the progress line.

    Raises:
        ValueError: the backbone has no such tokens, or not of such views; an image or a label map is unreadable.
        FloatingPointError, OSError: a token is not finite; the disk is full.
    """
    check_features(frozen.model, num_blocks, average_patches=False)
    grids = [token_grid(frozen.model, *dataset.view_size(index)) for index in indices]
    offsets = np.cumsum([0, *(h * w for h, w in grids)])
    tokens = _empty(store_path, (int(offsets[-1]), frozen.model.num_features * num_blocks), dtype)
    labels = _empty(store_path, (int(offsets[-1]), dataset.num_classes), "f4")
    groups: dict[tuple[int, int], list] = {}
    for place, (index, grid) in enumerate(zip(indices, grids, strict=True)):
        groups.setdefault(grid, []).append((place, index, grid))
    batches = [
        same[first : first + batch_size] for same in groups.values() for first in range(0, len(same), batch_size)
    ]
    progress, done = Progress(title, len(grids)), 0
    for places, views, shares in load(dataset, num_workers, batch_sampler=batches):
        half = torch.autocast(frozen.device.type, dtype=frozen.dtype, enabled=frozen.dtype is not None)
        with half, quick_products(frozen.device):
            computed = patch_tokens(frozen.model, frozen.normalise(views), num_blocks).float().flatten(1, 2).cpu()
        for place, rows, share in zip(places.tolist(), computed.numpy(), shares.numpy(), strict=True):
            part = slice(*offsets[place : place + 2])
            tokens[part], labels[part] = rows, share
            if not np.isfinite(tokens[part]).all():
                name = shown_path(dataset.pairs[indices[place]][0])
                raise FloatingPointError(f"tokens of {name} are not finite in {tokens.dtype}: look at the weights")
        progress(done := done + len(places))
    return DenseFeatures(np.array(indices), tokens, labels, offsets, np.array(grids))


def _empty(folder: Path | None, shape: tuple[int, int], dtype: DTypeLike) -> NDArray:
    """In memory, or in an unnamed file whose space is taken now: a full disk ends in an error, not in a crash."""
    if folder is None:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=shape)
