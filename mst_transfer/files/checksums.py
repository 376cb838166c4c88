"""Checkpoints that carry their own checksum: a SHA-256 of the whole file, inside the file.

torch reads its zip archives without comparing the CRCs in them: a flipped bit in a weight loads without a word.

- ``.pth``: the digest is the comment of the zip archive, which zip readers and ``torch.load`` pass over. It covers
  every byte before it.
- ``.safetensors``: the digest is an entry of the header's metadata. It covers the whole file with that entry's digits
  as zeros.

A file without a digest, of another program or an older release, is checked as far as its format allows.
"""

import hashlib
import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mst_transfer.files.atomic_files import write_atomically

PREFIX = b"mst-transfer sha256:"
TRAILER_SIZE = len(PREFIX) + 64
END_RECORD, END_RECORD_SIZE = b"PK\5\6", 22  # of a zip archive without a comment
HEADER_ENTRY, NO_DIGEST = "checksum", "sha256:" + 64 * "0"
_CHUNK = 1 << 20


class BrokenCheckpointError(ValueError):
    """A checkpoint is cut short or changed; ``reason`` says how it shows.

    Args:
        path: the file.
        reason: how the damage shows.
        advice: what to do.
    """

    def __init__(self, path: str | os.PathLike, reason: str, advice: str | None = None) -> None:
        advice = advice or "copy it again from where it is whole, or take another checkpoint"
        super().__init__(f"checkpoint {path} is broken: {reason}. Next step: {advice}")
        self.path, self.reason = Path(path), reason


class _HashingFile(io.RawIOBase):
    """Hashes what is written through it, all but the last ``END_RECORD_SIZE`` bytes, and keeps the first fault."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.tail = file, hashlib.sha256(), b""
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            self.file.write(view)
        except OSError as error:
            self.error = self.error or error
            raise
        if len(view) >= END_RECORD_SIZE:
            self.digest.update(self.tail)
            self.digest.update(view[:-END_RECORD_SIZE])
            self.tail = bytes(view[-END_RECORD_SIZE:])
        else:
            joined = self.tail + bytes(view)
            self.digest.update(joined[:-END_RECORD_SIZE])
            self.tail = joined[-END_RECORD_SIZE:]
        return len(view)

    def flush(self) -> None:
        """The file is flushed where it is closed."""


def write_checkpoint(path: str | os.PathLike, content: Any, make_folder: bool = True) -> None:
    """``torch.save`` with a checksum, under a temporary name, then renamed.

    Args:
        path: The file. An older file is replaced.
        content: What ``torch.save`` takes.
        make_folder: Make the file's folder if it is missing.

    Raises:
        FileNotWrittenError: No space, no right, no folder. An older file stays as it was.
    """
    needed = content_size(content)
    write_atomically(path, lambda temporary: _save_with_digest(temporary, content), needed, make_folder)


def _save_with_digest(path: str, content: Any) -> None:
    import torch

    with open(path, "wb", buffering=0) as file:
        hashing = _HashingFile(file)
        try:
            torch.save(content, hashing)  # type: ignore[arg-type]
        except Exception:
            if hashing.error is not None:  # torch hides it behind one of its own
                raise hashing.error from None
            raise
        assert hashing.tail.startswith(END_RECORD) and hashing.tail.endswith(b"\0\0")
        comment_size = struct.pack("<H", TRAILER_SIZE)
        hashing.digest.update(hashing.tail[:-2] + comment_size)
        file.seek(-2, os.SEEK_END)
        file.write(comment_size + PREFIX + hashing.digest.hexdigest().encode())


def content_size(content: Any) -> int:
    """Bytes of all tensors in nested containers, each storage counted once."""
    from torch import Tensor

    sizes: dict[int, int] = {}

    def walk(value: Any) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, Mapping):
            for item in value.values():
                walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)

    walk(content)
    return sum(sizes.values())


def sealed(save: Callable[[str], object]) -> Callable[[str], None]:
    """A writer of a safetensors file whose metadata have ``HEADER_ENTRY: NO_DIGEST``, with the digest put in."""

    def write(path: str) -> None:
        try:
            save(path)
        except Exception as error:  # safetensors has an error of its own, which the system's is a part of
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        with open(path, "rb+") as file:
            place = _header(file).find(NO_DIGEST.encode())
            if place < 0:
                raise AssertionError(f"{path}: its header has no place for a checksum")
            digest = _digest_of(file, ())
            file.seek(place + len("sha256:"))
            file.write(digest.encode())

    return write


def verify_checkpoint(path: str | os.PathLike) -> bool:
    """Reads a whole checkpoint file and compares its checksum. A file that this process has found whole and that has
    not changed since is not read again.

    Returns:
        Whether it has a checksum. False: another program's file, whose structure, and CRCs if it has any, are in order.

    Raises:
        BrokenCheckpointError: It is cut short or changed.
    """
    path = Path(path)
    status = path.stat()
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if state not in _whole:
        with open(path, "rb") as file:
            has_digest = _verify_safetensors if path.suffix == ".safetensors" else _verify_archive
            _whole[state] = has_digest(path, file, status.st_size)
    return _whole[state]


_whole: dict[tuple[int, ...], bool] = {}


def _verify_archive(path: Path, file: BinaryIO, size: int) -> bool:
    if size == 0:
        raise BrokenCheckpointError(path, "it is empty")
    file.seek(max(size - TRAILER_SIZE - END_RECORD_SIZE, 0))
    end = file.read()
    trailer = end[-TRAILER_SIZE:]
    if trailer.startswith(PREFIX):
        if _digest_of(file, (), size - TRAILER_SIZE).encode() != trailer[len(PREFIX) :]:
            raise BrokenCheckpointError(path, "its content does not match its checksum")
        return True
    plain = end[-END_RECORD_SIZE:]
    file.seek(0)
    start = file.read(4)
    if plain.startswith(END_RECORD) and plain.endswith(b"\0\0") and start == b"PK\3\4":
        _verify_records(path, file)
        return False
    if start.startswith(b"\x80"):  # torch's format before 1.6: a bare pickle
        return False
    raise BrokenCheckpointError(path, f"it is cut short or changed at its end ({size:,} bytes)")


def _verify_records(path: Path, file: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise BrokenCheckpointError(path, f"its table of contents is damaged ({error})") from error
    if damaged:
        raise BrokenCheckpointError(path, f"its record {damaged} does not match its CRC")


def _verify_safetensors(path: Path, file: BinaryIO, size: int) -> bool:
    header = _header(file)
    if len(header) < 10 or size != len(header) + _tensor_bytes(header):
        raise BrokenCheckpointError(path, f"it is cut short, or its header is changed ({size:,} bytes)")
    found = re.search(rb'"checksum":"sha256:([0-9a-f]{64})"', header)
    if found is None:
        if b'"checksum"' in header or b'"sha256:' in header:
            raise BrokenCheckpointError(path, "its checksum is damaged")
        return False
    if _digest_of(file, found.span(1)).encode() != found[1]:
        raise BrokenCheckpointError(path, "its content does not match its checksum")
    return True


def _header(file: BinaryIO) -> bytes:
    """The first bytes of a safetensors file up to its tensors; empty if their length is not to be believed."""
    file.seek(0)
    start = file.read(8)
    length = int.from_bytes(start, "little")
    header = file.read(length) if length < 100_000_000 else b""
    return start + header if header and len(header) == length else b""


def _tensor_bytes(header: bytes) -> int:
    """Size of all tensors as the header says; -1 for a header that cannot be read."""
    try:
        entries = json.loads(header[8:])
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        return max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return -1


def _digest_of(file: BinaryIO, zeros: tuple[int, ...], end: int | None = None) -> str:
    """SHA-256 of a file up to ``end``; the bytes between the two ``zeros`` (in the first MiB or later) read as "0"."""
    digest, position = hashlib.sha256(), 0
    file.seek(0)
    if zeros:
        digest.update(file.read(zeros[0]))
        digest.update(b"0" * len(file.read(zeros[1] - zeros[0])))
        position = zeros[1]
    buffer = memoryview(bytearray(_CHUNK))
    while end is None or position < end:
        wanted = buffer if end is None else buffer[: min(_CHUNK, end - position)]
        count = file.readinto(wanted)  # type: ignore[attr-defined]
        if not count:
            break
        digest.update(buffer[:count])
        position += count
    return digest.hexdigest()
