"""What a file of weights claims must fit what it holds: a small file stands for no large or endless content."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_TENSORS = 1_000_000
MAX_DEPTH = 64
MAX_EXPANDED_BYTES = 2**28  # of a tensor that repeats its storage


def check_archive(path: Path) -> None:
    """Refuses a zip archive that unpacks to more than the file has: torch stores its records as they are.

    Raises:
        ValueError: it does, or its directory cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error}); copy or write it again") from error
    claimed, size = sum(record.file_size for record in records), path.stat().st_size
    packed = [record.filename for record in records if record.compress_type != zipfile.ZIP_STORED]
    if packed or claimed > size:
        what = f"{packed[0]!r} in it is compressed" if packed else f"its records claim {claimed:,} bytes"
        raise ValueError(
            f"{path} was refused: {what}, but torch.save stores records as they are, and the file has {size:,} bytes. "
            "Unpack it, and write it again with torch.save"
        )


def named_tensors(content: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested dictionaries under dotted names; other content is passed over.

    Raises:
        ValueError: the dictionaries are nested without end or too deep, or there are too many; or a tensor has no data
            of its own.
    """
    visits = 0

    def walk(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        nonlocal visits
        visits += 1
        if depth > MAX_DEPTH or visits > MAX_TENSORS:
            limit = f"nested more than {MAX_DEPTH} deep" if depth > MAX_DEPTH else f"more than {MAX_TENSORS:,} entries"
            raise ValueError(
                f"{path} was refused: its dictionaries are {limit} (at {prefix[:80]!r}): no file of weights"
            )
        if isinstance(node, Tensor):
            _check_tensor(node, prefix, path)
            yield prefix, node
        elif isinstance(node, Mapping):
            for key, value in node.items():
                if isinstance(key, str):
                    yield from walk(value, f"{prefix}.{key}" if prefix else key, depth + 1)

    return walk(content, "", 0)


def _check_tensor(tensor: Tensor, name: str, path: Path) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else f"{tensor.layout} on {tensor.device}"
        raise ValueError(f"{path}: {name} is no plain tensor ({kind}); save tensor.to_dense().dequantize() of it")
    size = tensor.numel() * tensor.element_size()
    if size > max(tensor.untyped_storage().nbytes(), MAX_EXPANDED_BYTES):
        raise ValueError(
            f"{path} was refused: {name} {tuple(tensor.shape)} claims {size:,} bytes, of which the file holds "
            f"{tensor.untyped_storage().nbytes():,}"
        )
