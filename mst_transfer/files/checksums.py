"""SHA-256 of checkpoints, in a list beside them that ``sha256sum -c checkpoints.sha256`` reads too.

torch reads its zip archives without comparing the CRCs in them: a flipped bit in a weight loads without a word.

A file's new line is added to the list before the file gets its name, and its old line goes after that: whenever the
writer is killed, the file that stands there matches a line. A file that is in no list, of another program or copied
without it, is checked as far as its format allows.
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mst_transfer.files.atomic_files import locked_folder, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

LIST = "checkpoints.sha256"
_LINE = re.compile(rb"([0-9a-f]{64}) [ *](.+)")
_MAX_LIST_BYTES = 2**24  # a folder of 100,000 checkpoints
_CHUNK = 1 << 20


class BrokenCheckpointError(ValueError):
    """A checkpoint is cut short or changed; ``reason`` says how it shows, ``advice`` what to do."""

    def __init__(self, path: str | os.PathLike, reason: str, advice: str | None = None) -> None:
        advice = advice or "copy it again from where it is whole, or take another checkpoint"
        super().__init__(f"checkpoint {path} is broken: {reason}. Next step: {advice}")
        self.path, self.reason = Path(path), reason


def write_checkpoint(path: str | os.PathLike, content: Any) -> None:
    """``torch.save`` under a temporary name, then renamed, with its checksum in the list.

    Raises:
        FileNotWrittenError: No space, no right. An older file stays as it was.
    """
    import torch

    def save(temporary: str) -> None:
        try:
            with open(temporary, "wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # raised by torch while it handles one of the system, which says more
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    _write_listed(path, save, content_size(content))


def write_safetensors(path: str | os.PathLike, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    """safetensors' ``save_file`` under a temporary name, then renamed, with its checksum in the list.

    Raises:
        FileNotWrittenError: No space, no right. An older file stays as it was.
    """
    from safetensors.torch import save_file

    def save(temporary: str) -> None:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except Exception as error:  # safetensors has an error of its own, which the system's is a part of
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error

    _write_listed(path, save, content_size(tensors))


def content_size(content: Any) -> int:
    """Bytes of all tensors in nested containers, each storage counted once."""
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    storages = [leaf.untyped_storage() for leaf in tree_leaves(content) if isinstance(leaf, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def move_checkpoint(source: Path, target: Path) -> None:
    """Renames a file; its checksum, if it has one, moves to the list beside the target."""
    with _listed(target, next(iter(_digests(source)), None)):
        os.replace(source, target)


def forget_removed(folder: str | os.PathLike) -> None:
    """Takes files that are gone from a folder's list. Where that cannot be written they stay in it: it does no harm."""
    with suppress(OSError), locked_folder(folder):
        _write_list(Path(folder), _read_list(Path(folder)))


def verify_checkpoint(path: str | os.PathLike) -> bool:
    """Reads a whole checkpoint file and compares its checksum. A file that this process has found whole and that has
    not changed since is not read again.

    Returns:
        Whether it has a checksum. False: another program's file, whose structure, and CRCs if it has any, are in order.

    Raises:
        BrokenCheckpointError: It is cut short or changed.
    """
    real = Path(os.path.realpath(path))
    while True:
        with open(path, "rb") as file:
            state = _state(os.fstat(file.fileno()))
            expected = _digests(real)
            if (state, expected) not in _whole:
                if not expected:
                    _check_structure(Path(path), file)
                elif _sha256(file) not in expected:
                    if _state(os.stat(path)) != state:  # a writer has replaced file and line meanwhile
                        continue
                    raise BrokenCheckpointError(
                        path,
                        f"its content does not match its checksum in {real.with_name(LIST)}; if another program has "
                        "written it since, take its line out there",
                    )
                _whole.add((state, expected))
        return bool(expected)


_whole: set[tuple[tuple[int, ...], tuple[str, ...]]] = set()


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_structure(path: Path, file: BinaryIO) -> None:
    """As far as the format allows: lengths in safetensors, CRCs in archives of torch, nothing in bare pickles."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise BrokenCheckpointError(path, "it is empty")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt"):
                return
        except SafetensorError as error:
            raise BrokenCheckpointError(path, f"it is cut short, or its header is changed ({error})") from error
    start = file.read(4)
    if start[:1] == b"\x80":  # torch's format before 1.6
        return
    if start != b"PK\3\4" or not zipfile.is_zipfile(file):
        raise BrokenCheckpointError(path, f"it is cut short or changed at its end ({size:,} bytes)")
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise BrokenCheckpointError(path, f"its table of contents is damaged ({error})") from error
    if damaged:
        raise BrokenCheckpointError(path, f"its record {damaged} does not match its CRC")


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
    return digest.hexdigest()


def _write_listed(path: str | os.PathLike, save: Callable[[str], None], needed: int) -> None:
    """Writes a file with ``save``, and lists it."""
    digests: list[str] = []

    def write(temporary: str) -> None:
        save(temporary)
        digests.append(sha256_of(temporary))

    write_atomically(path, write, needed, renaming=lambda: _listed(Path(path), digests[0]))


@contextmanager
def _listed(path: Path, digest: str | None) -> Iterator[None]:
    """Around a rename to a path: the list has the new file's line before it, and the old one's no more after it."""
    folder, name = path.parent, path.name
    new = [] if digest is None or "\n" in name else [digest]
    with locked_folder(folder):
        listed = _read_list(folder)
        former = listed.pop(name, [])
        if new and not former and path.is_file():  # of another program: the new line must not accuse it
            former = [sha256_of(path)]
        _write_list(folder, {**listed, name: [*former, *new] if new else []})
        yield
        with suppress(OSError):
            _write_list(folder, {**listed, name: new})


def _digests(path: Path) -> tuple[str, ...]:
    """What a file's checksum may be; empty if it is in no list."""
    return tuple(_read_list(path.parent).get(path.name, ()))


def _read_list(folder: Path) -> dict[str, list[str]]:
    """Names of a folder's list, of files that are there, and their digests; other lines are passed over."""
    listed: dict[str, list[str]] = {}
    with suppress(FileNotFoundError), open(folder / LIST, "rb") as file:
        for line in file.read(_MAX_LIST_BYTES).split(b"\n"):
            match = _LINE.fullmatch(line)
            if match and (folder / os.fsdecode(match[2])).exists():
                listed.setdefault(os.fsdecode(match[2]), []).append(match[1].decode())
    return listed


def _write_list(folder: Path, listed: dict[str, list[str]]) -> None:
    lines = [f"{digest}  {name}\n" for name, digests in listed.items() for digest in digests]
    path, content = folder / LIST, os.fsencode("".join(lines))
    if not content:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_bytes() != content:
        write_atomically(path, lambda temporary: Path(temporary).write_bytes(content), len(content))
