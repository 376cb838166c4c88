"""Shards from elsewhere, s3:// or any address of fsspec's: kept on this machine, whole, up to a limit.

All processes of a machine share the cache: who needs a shard first fetches it, others wait; the shards that were not
used for longest make room. Keys come from the environment, as fsspec's packages read them.
"""

import hashlib
import io
import os
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock

from mst_transfer.files.atomic_files import remove_stale_temporaries, write_atomically
from mst_transfer.files.image_files import UnreadableImageError

CACHE_GB = 100.0
_CHUNK = 2**25  # bytes of a request
_PAUSES = (0.5, 5.0)  # seconds before further attempts
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_NUM_LOCKS = 64
Result = TypeVar("Result")


class ShardCache:
    """Files of one address.

    Args:
        url: of their folder.
        limit_gb: of all shards in ``top``, in GB of 10^9 bytes.
        top: folder of the cache; None: ``~/.cache/mst_transfer/shards``.

    Raises:
        ValueError: the address has a password or a signature in it.
    """

    def __init__(self, url: str, limit_gb: float, top: str | os.PathLike[str] | None) -> None:
        parts = urlsplit(url)
        if parts.password or parts.query:
            raise ValueError(f"a key in the address {parts.scheme}://… would be logged. Next step: the environment")
        self.url, self.limit = url.rstrip("/"), int(limit_gb * 1e9)
        self.top = Path(top or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "mst_transfer/shards").expanduser())
        self.folder = self.top / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.sizes: dict[str, int] = {}  # of the files there, as they were when the index was fetched

    def fetch_index(self, header: str, *others: str) -> str:
        """Fetches files, unless ``header`` is here and has not changed; the folder that has them.

        Raises:
            ValueError: they do not exist, cannot be read, or a package is missing.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(self.folder)
        with FileLock(self.folder / ".lock"):
            found = _ask(self.url, lambda files, path: files.ls(path, detail=True))
            self.sizes = {one["name"].rpartition("/")[2]: one["size"] or 0 for one in found}
            if not {header, *others} <= self.sizes.keys():
                raise ValueError(f"{self.url} has no index. Next step: mst shard --index FOLDER, then upload all of it")
            text = _read(f"{self.url}/{header}")
            here = self.folder / header
            if not here.is_file() or here.read_bytes() != text:
                for path in (here, *self.folder.glob("*.tar")):
                    path.unlink(missing_ok=True)
                for name in others:
                    write_atomically(self.folder / name, partial(self._copy, name))
                write_atomically(here, lambda temporary: Path(temporary).write_bytes(text))
        return str(self.folder)

    def open(self, name: str, size: int) -> io.FileIO:
        """A shard, fetched if need be.

        Raises:
            UnreadableImageError: it cannot be fetched.
            FileNotWrittenError: there is no room for it.
        """
        path = self.folder / name
        while True:
            with suppress(FileNotFoundError):  # not yet, or no more
                file = io.FileIO(str(path))
                os.utime(file.fileno())
                return file
            with FileLock(self.folder / f".lock{zlib.crc32(name.encode()) % _NUM_LOCKS}"):
                if not path.exists():
                    write_atomically(path, partial(self._copy, name, is_shard=True), size)

    def _copy(self, name: str, temporary: str, is_shard: bool = False) -> None:
        size = self.sizes[name]
        if is_shard:
            with FileLock(self.top / ".lock"):
                self._make_room(size)
                os.truncate(temporary, size)  # counts, from now on, for others
        with open(temporary, "r+b") as file:
            for start in range(0, size, _CHUNK):
                data = _read(f"{self.url}/{name}", start, min(start + _CHUNK, size))
                if len(data) < min(_CHUNK, size - start):
                    raise UnreadableImageError(f"{self.url}/{name} is cut short")
                file.write(data)

    def _make_room(self, size: int) -> None:
        found = []
        for path in (*self.top.glob("*/*.tar"), *self.top.glob("*/.*.tar.*.tmp")):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        too_many = sum(one[1] for one in found) + size - self.limit
        for _, bytes_there, path in sorted(one for one in found if one[2].suffix == ".tar"):
            if too_many > 0:
                path.unlink(missing_ok=True)
                too_many -= bytes_there


def _read(url: str, start: int | None = None, end: int | None = None) -> bytes:
    return _ask(url, lambda files, path: files.cat_file(path, start, end))


def _ask(url: str, what: Callable[[Any, str], Result]) -> Result:
    """Asks the file system of an address, more than once if it fails."""
    for pause in (*_PAUSES, None):
        try:
            from fsspec.core import url_to_fs

            return what(*url_to_fs(url))  # anew: asynchronous ones do not survive a fork
        except ImportError as error:
            package = _PACKAGES.get(urlsplit(url).scheme, "")
            raise ValueError(f"{url}: {error}. Next step: pip install fsspec {package}".rstrip()) from error
        except Exception as error:  # of whatever library is below
            if pause is None or isinstance(error, ValueError | FileNotFoundError | PermissionError):
                reason = "it does not exist" if isinstance(error, FileNotFoundError) else f"{error}"
                raise UnreadableImageError(f"{url} cannot be fetched: {reason}") from error
        time.sleep(pause)
    raise AssertionError
