"""The photos that a pre-training reads: of folders, and of shards with an index."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from mst_transfer.files.image_files import IMAGE_EXTENSIONS, MAX_PIXELS, read_image_file
from mst_transfer.files.image_folder import find_images
from mst_transfer.files.shard_cache import CACHE_GB, ShardCache
from mst_transfer.files.shards import Shards, is_sharded


class Photos:
    """One list of the photos below several roots: their names by number, and their bytes.

    Args:
        roots: a folder of photos or of shards, an address of shards, or a list of these.
        extensions: of photos in folders; see ``find_images``.
        max_images: take only so many, evenly spread; None takes all.
        cache_gb, cache_dir: see ``ShardCache``.

    Raises:
        FileNotFoundError: a folder or a shard is missing, or a folder holds no image.
        ValueError: no root is given, an index cannot be used, or the cache is too small for two shards.
    """

    def __init__(
        self,
        roots: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        max_images: int | None = None,
        cache_gb: float = CACHE_GB,
        cache_dir: str | None = None,
    ) -> None:
        self._parts: list[list[str] | Shards] = []
        self.shards_in_cache: int | None = None  # at once, where the cache does not hold all
        sizes: list[int] = []
        for root in [roots] if isinstance(roots, str | os.PathLike) else roots:
            root = os.fspath(root)
            cache = ShardCache(root, cache_gb, cache_dir) if "://" in root else None
            self._parts.append(part := Shards(root, cache) if is_sharded(root) else find_images(root, extensions))
            sizes += [size for _, size in part.shards] if cache and isinstance(part, Shards) else []
        self.is_cached = bool(sizes)
        if sum(sizes) > cache_gb * 1e9:
            self.shards_in_cache = int(cache_gb * 1e9 // max(sizes))
            if self.shards_in_cache < 2:
                raise ValueError(f"cache_gb={cache_gb:g} does not hold two shards of {max(sizes) / 1e9:g} GB: raise it")
        if not self._parts:
            raise ValueError("data_root is empty: give a folder of images, or a list of folders.")
        self._ends = [*accumulate(map(len, self._parts))]
        self._num = min(self._ends[-1], max_images or self._ends[-1])

    def __len__(self) -> int:
        return self._num

    def _find(self, index: int) -> tuple[list[str] | Shards, int]:
        if not 0 <= index < self._num:
            raise IndexError(index)
        place = index * self._ends[-1] // self._num
        number = bisect_right(self._ends, place)
        return self._parts[number], place - (self._ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> str:
        part, place = self._find(index)
        return part.path(place) if isinstance(part, Shards) else part[place]

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> bytes:
        """The content of a photo; errors are those of ``read_image_file``."""
        part, place = self._find(index)
        return part.read(place, max_pixels) if isinstance(part, Shards) else read_image_file(part[place], max_pixels)

    def permute(self, generator: np.random.Generator, shards_at_once: int | None) -> NDArray[np.int64]:
        """All numbers in random order; those of so many shards (or folders), drawn at random, before the next ones."""
        if shards_at_once is None:
            return generator.permutation(self._num)
        parts = [part.bounds[1:] if isinstance(part, Shards) else np.array([len(part)]) for part in self._parts]
        ends = np.concatenate([bounds + start for bounds, start in zip(parts, [0, *self._ends], strict=False)])
        shards = np.split(np.arange(self._num), -(-ends[:-1] * self._num // self._ends[-1]))
        drawn = [shards[number] for number in generator.permutation(len(shards))]
        groups = [np.concatenate(drawn[at : at + shards_at_once]) for at in range(0, len(drawn), shards_at_once)]
        return np.concatenate([generator.permutation(group) for group in groups])


class Photo(os.PathLike[str]):
    """One of ``Photos``, for ``read_image``: its name is looked up where it is asked for, not before."""

    def __init__(self, photos: Photos, number: int) -> None:
        self.photos, self.number = photos, number

    def __fspath__(self) -> str:
        return self.photos[self.number]

    def read(self, max_pixels: int) -> bytes:
        """The content; see ``Photos.read``."""
        return self.photos.read(self.number, max_pixels)
