"""Photos in tar shards of WebDataset's layout, read one by one by means of an index.

The index lies beside the shards: ``mst_shards.json`` names them, ``mst_shards.npy`` has a ``SAMPLE`` for each photo,
``mst_shards.names`` their names. The last two are mapped into memory: all processes of a machine share them.
"""

import io
import json
import os
import stat
import tarfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mst_transfer.files import image_files
from mst_transfer.files.image_files import IMAGE_EXTENSIONS, MAX_PIXELS, UnreadableImageError
from mst_transfer.files.shard_cache import ShardCache

HEADER, SAMPLES, NAMES = "mst_shards.json", "mst_shards.npy", "mst_shards.names"
FORMAT = "shards of mst-transfer, 1"
# name: where it begins among the names, which are laid end to end; offset: of the photo in its shard
SAMPLE = np.dtype([("name", "<u8"), ("offset", "<u8"), ("size", "<u4"), ("crc32", "<u4"), ("shard", "<u4")])
_MAX_OPEN = 128  # shards of each process


def is_sharded(root: str | os.PathLike[str]) -> bool:
    """Whether a ``data_root`` is an address, which shards alone may have, or a folder of shards with an index."""
    return "://" in str(root) or os.path.isfile(os.path.join(root, HEADER))


def read_header(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """``complete``, ``checksums``, ``shards`` as [name, bytes, photos], …; ValueError: it is damaged."""
    path = Path(folder) / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header["format"] == FORMAT and all(os.path.basename(name) == name for name, _, _ in header["shards"]):
            return header
    except (ValueError, LookupError, TypeError):
        pass
    raise ValueError(f"{path} is damaged, or no index of shards. Next step: mst shard --index {folder}")


def scan_shard(path: str | os.PathLike[str], checksums: bool) -> tuple[NDArray[Any], bytes, Counter[str]]:
    """Walks through the headers of a tar file; its content is read for ``checksums`` only.

    Returns:
        A ``SAMPLE`` for each image, as of shard 0; their names, end to end; other endings and how many have them. An
        ending is, as in WebDataset, what is behind the first dot of the base name.

    Raises:
        ValueError: no plain tar file, or a damaged one; names it.
    """
    rows, names, others = [], bytearray(), Counter[str]()
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in (member for member in tar if member.isreg()):
                base = member.name.rpartition("/")[2]
                ending = f".{base.partition('.')[2].lower()}"
                if ending not in IMAGE_EXTENSIONS or base.startswith(".") or member.size >= 2**32:
                    others[ending] += 1
                    continue
                file.seek(member.offset_data)
                crc = zlib.crc32(file.read(member.size)) if checksums else 0
                rows.append((len(names), member.offset_data, member.size, crc, 0))
                names += os.fsencode(member.name)
            file.seek(tar.offset)  # tarfile takes any damage behind the first header for the end
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"neither a file nor the end at byte {tar.offset:,}")
            while block := file.read(2**20):
                if block.strip(b"\0"):
                    raise tarfile.ReadError(f"more behind its end at byte {tar.offset:,}")
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no plain tar file, is cut short, or is damaged: {error}") from error
    return np.array(rows, SAMPLE), bytes(names), others


class Shards:
    """The photos of shards with an index. It may be forked and pickled: each process opens files of its own.

    Args:
        root: their folder, or an address of fsspec's.
        cache: where shards from elsewhere are kept.

    Raises:
        FileNotFoundError: shards that the index names are missing, or of another size.
        ValueError: the index is missing, not finished, or damaged; or the cache is too small.
    """

    def __init__(self, root: str, cache: ShardCache | None = None) -> None:
        self.root, self.cache = root, cache
        self.folder = root if cache is None else cache.fetch_index(HEADER, SAMPLES, NAMES)
        header = read_header(self.folder)
        self.shards: list[tuple[str, int]] = [(name, size) for name, size, _ in header["shards"]]
        self.bounds = np.cumsum([0, *(num for _, _, num in header["shards"])])  # number of a shard's first photo
        self.has_checksums = header["checksums"]
        if not header["complete"]:
            raise ValueError(f"{root} is not finished. Next step: once more the mst shard PHOTOS that began it")
        self._map()
        faults = [name for name, size in self.shards if self._size(name) != size]
        if faults:
            raise FileNotFoundError(
                f"{root}: {len(faults):,} of {len(self.shards):,} shards are missing or not as long as the index says, "
                f"such as {', '.join(faults[:5])}. Next step: copy them again; or mst shard --index {root}"
            )

    def _map(self) -> None:
        self._files: dict[int, io.FileIO] = {}  # the one used last at the end
        try:
            self.samples = np.load(os.path.join(self.folder, SAMPLES), mmap_mode="r", allow_pickle=False)
            self.names = np.memmap(os.path.join(self.folder, NAMES), mode="r")
            if (self.samples.dtype, self.samples.shape) == (SAMPLE, (len(self),)):
                return
        except (OSError, ValueError, EOFError):
            pass
        raise ValueError(f"{self.root}: its index is damaged. Next step: mst shard --index {self.root}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("samples", "names", "_files")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map()

    def _size(self, name: str) -> int:
        if self.cache is not None:
            return self.cache.sizes.get(name, -1)
        try:
            status = os.stat(os.path.join(self.folder, name))
        except OSError:
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def path(self, index: int) -> str:
        """What a photo is called: folder, shard, and the member's name."""
        start, shard = (int(self.samples[index][field]) for field in ("name", "shard"))
        end = int(self.samples[index + 1]["name"]) if index + 1 < len(self) else len(self.names)
        return f"{self.root}/{self.shards[shard][0]}/{os.fsdecode(self.names[start:end].tobytes())}"

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> bytes:
        """The content of a photo, by the rules and with the errors of ``read_image_file``.

        Raises:
            UnreadableImageError: also if its shard is missing, cut short or changed.
        """
        _, offset, size, crc, shard = self.samples[index].item()
        image_files.check_bytes(size, max_pixels)
        data = image_files.read_patiently(self.shards[shard][0], lambda: self._pread(shard, size, offset))
        if len(data) < size:
            raise UnreadableImageError("its shard is cut short")
        if self.has_checksums and zlib.crc32(data) != crc:
            raise UnreadableImageError("it does not match its checksum: its shard is damaged")
        image_files.check_pixels(io.BytesIO(data), max_pixels)
        return data

    def _pread(self, shard: int, size: int, offset: int) -> bytes:
        file = self._files.pop(shard, None) or self._open(shard)  # one that fails is not kept
        data = os.pread(file.fileno(), size, offset)
        while len(data) < size and (more := os.pread(file.fileno(), size - len(data), offset + len(data))):
            data += more
        self._files[shard] = file
        return data

    def _open(self, shard: int) -> io.FileIO:
        while len(self._files) >= (_MAX_OPEN if self.cache is None else 1):
            self._files.pop(next(iter(self._files))).close()
        if self.cache is not None:
            return self.cache.open(*self.shards[shard])
        path = os.path.join(self.folder, self.shards[shard][0])
        image_files.check_kind(path)
        return io.FileIO(path)
