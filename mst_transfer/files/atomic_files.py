"""Files that appear whole or not at all, and what to say where they cannot be written.

A file is written under a hidden temporary name beside it, flushed to the disk, and renamed. A temporary file is
locked while its writer lives, so that one left behind by a killed process is known as such and cleared away.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\..*\.tmp|\.tmp[A-Za-z0-9]{6}", re.DOTALL)  # ours, and those that safetensors makes for ours
ADVICE = {
    errno.ENOSPC: "make space there (older runs' checkpoints, data no longer needed) or name a folder on another disk",
    errno.EDQUOT: "make space within your quota there or name a folder on another disk",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) or name a folder on another disk",
    errno.EROFS: "mount that disk for writing (it may have become read-only after a fault) or name another folder",
    errno.EACCES: "give yourself the right to write there or name another folder",
    errno.EPERM: "give yourself the right to write there or name another folder",
    errno.ENOENT: "find out who removed or unmounted the folder, and put it back or name another",
    errno.EEXIST: "name a folder instead of a file",
    errno.ENOTDIR: "name a folder instead of a file",
    errno.EIO: "see the system's log: the disk may be failing",
    errno.ESTALE: "see whether the network disk is mounted",
}


class FileNotWrittenError(OSError):
    """A file could not be written; what stood under its name before is unchanged, and nothing half-written is left."""

    def __init__(self, path: str | os.PathLike, error: OSError, needed: int | None = None) -> None:
        super().__init__(error.errno, os.strerror(error.errno or 0))
        self.path, self.filename = Path(path), str(path)
        size = [] if needed is None else [f"it needs {readable_size(needed)}"]
        free = free_space(self.path)
        if free is not None:
            size.append(f"{readable_size(free)} are free on that disk")
        reason = error.strerror or str(error)
        sizes = f"; {', '.join(size)}" if size else ""
        advice = ADVICE.get(error.errno or 0, "mend what the reason names")
        self.message = f"cannot write {path}: {reason}{sizes}. Next step: {advice}"

    def __str__(self) -> str:
        return self.message


def readable_size(size: float) -> str:
    """A number of bytes in decimal units, e.g. ``12.3 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def free_space(path: str | os.PathLike) -> int | None:
    """Bytes that this user may still write on the disk of a path, which need not exist; None if unknown."""
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with suppress(OSError):
        usage = shutil.disk_usage(place)
        return usage.free if usage.total else None
    return None


def write_atomically(path: str | os.PathLike, write: Callable[[str], object], needed: int | None = None) -> None:
    """Writes a file under a temporary name beside it, flushes it to the disk, then renames it.

    Its folder is made, an older file is replaced. ``write`` is called with the temporary path, which it must fill;
    ``needed`` is the size in bytes, if known, for the message.

    Raises:
        FileNotWrittenError: No space, no right, no folder. An older file stays as it was.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise FileNotWrittenError(path, error, needed) from error
    try:
        try:
            _lock(handle)
            write(temporary)
            give_usual_permissions(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(handle)  # gives its space back, where it was removed
    except FileNotWrittenError:
        raise
    except OSError as error:
        raise FileNotWrittenError(path, error, needed) from error


def write_text_atomically(path: str | os.PathLike, text: str) -> None:
    """Writes a small UTF-8 file; see ``write_atomically``."""
    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"), len(text))


def give_usual_permissions(path: str | os.PathLike) -> None:
    """Gives a file or folder what ``open`` or ``mkdir`` would have, instead of what ``tempfile`` or a library gave."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, (0o777 if os.path.isdir(path) else 0o666) & ~umask)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder last through a loss of power, where its file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_stale_temporaries(folder: str | os.PathLike) -> list[str]:
    """Removes what killed writers left in a folder; files that a living process is writing stay.

    Returns:
        Names of the files that were removed.
    """
    removed = []
    for path in sorted(path for path in Path(folder).glob(".*") if _TEMPORARY.fullmatch(path.name)):
        with suppress(OSError):  # gone meanwhile, or not ours to remove
            handle = os.open(path, os.O_RDWR)
            try:
                if path.is_file() and _lock(handle):
                    path.unlink()
                    removed.append(path.name)
            finally:
                os.close(handle)
    return removed


def _lock(handle: int) -> bool:
    """Whether no other process has the file locked; it is then ours. The system lets go of a killed process's."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
