"""Checkpoints whose damage shows: torch's archives have CRCs, ours of safetensors a SHA-256 among their metadata.

torch reads its zip archives without comparing the CRCs in them: a flipped bit in a weight loads without a word. A file
without any checksum, of another program, is checked as far as its format allows.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mst_transfer.files.atomic_files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "sha256"  # entry of the metadata: of the others, and of the tensors
_CHUNK = 1 << 20
_FOLDER = 0x10  # an attribute in archives: of a record marked so torch gives what happens to be in memory


class BrokenCheckpointError(ValueError):
    """A checkpoint is cut short or changed; ``reason`` says how it shows, ``advice`` what to do."""

    def __init__(self, path: str | os.PathLike, reason: str, advice: str | None = None) -> None:
        advice = advice or "copy it again from where it is whole, or take another checkpoint"
        super().__init__(f"checkpoint {path} is broken: {reason}. Next step: {advice}")
        self.path, self.reason = Path(path), reason


def write_checkpoint(path: str | os.PathLike, content: Any) -> None:
    """``torch.save`` under a temporary name, then renamed.

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

    write_atomically(path, save, content_size(content))


def write_safetensors(path: str | os.PathLike, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    """safetensors' ``save_file`` under a temporary name, then renamed, with a checksum among the metadata.

    Raises:
        FileNotWrittenError: No space, no right. An older file stays as it was.
    """
    from safetensors.torch import save_file

    def save(temporary: str) -> None:
        try:
            save_file(tensors, temporary, metadata={**metadata, CHECKSUM: checksum_of(tensors, metadata)})
        except Exception as error:  # safetensors has an error of its own, which the system's is a part of
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error

    write_atomically(path, save, content_size(tensors))


def content_size(content: Any) -> int:
    """Bytes of all tensors in nested containers, each storage counted once."""
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    storages = [leaf.untyped_storage() for leaf in tree_leaves(content) if isinstance(leaf, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def checksum_of(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> str:
    """Hexadecimal SHA-256 of tensors, with their names, types and shapes, and of what is said of them."""
    import torch

    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def verify_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Reads a whole checkpoint file and compares its checksums. A file that this process has found whole and that has
    not changed since is not read again.

    Returns:
        Whether it has any. False: a bare pickle, or another program's safetensors, whose length alone is in order.

    Raises:
        BrokenCheckpointError: It is cut short or changed.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        if state not in _whole:
            _whole[state] = _has_checksum(Path(path), file, status.st_size)
    return _whole[state]


_whole: dict[tuple[int, ...], bool] = {}


def _has_checksum(path: Path, file: BinaryIO, size: int) -> bool:
    if size == 0:
        raise BrokenCheckpointError(path, "it is empty")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as content:
                metadata = dict(content.metadata() or {})
                if (expected := metadata.pop(CHECKSUM, None)) is None:
                    return False
                found = checksum_of({name: content.get_tensor(name) for name in content.keys()}, metadata)
        except SafetensorError as error:
            raise BrokenCheckpointError(path, f"it is cut short, or its header is changed ({error})") from error
        if found != expected:
            raise BrokenCheckpointError(path, "its content does not match its checksum")
        return True
    start = file.read(4)
    if start[:1] == b"\x80":  # torch's format before 1.6
        return False
    try:
        is_archive = start == b"PK\3\4" and zipfile.is_zipfile(file)
        archive = zipfile.ZipFile(file) if is_archive else None
        folders = [] if archive is None else [one.filename for one in archive.infolist() if one.external_attr & _FOLDER]
        damaged = None if archive is None else next(iter(folders), archive.testzip())
    except Exception as error:  # zipfile and its decoders raise nearly every type on broken files
        raise BrokenCheckpointError(path, f"its table of contents is damaged ({error})") from error
    if not is_archive:
        raise BrokenCheckpointError(path, f"it is cut short or changed at its end ({size:,} bytes)")
    if damaged:
        raise BrokenCheckpointError(path, f"its record {damaged} does not match its CRC or kind")
    return True


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
