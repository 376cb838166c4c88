"""Reads the tensors of any safetensors file or pickle, without running what the file may hold.

What a file claims must fit what it holds: a small file stands for no large or endless content.
"""

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mst_transfer.compat.serialization import allowed_types
from mst_transfer.files.checksums import verify_checkpoint

MAX_TENSORS = 1_000_000
MAX_DEPTH = 64
MAX_EXPANDED_BYTES = 2**28  # of a tensor that repeats its storage


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors and the metadata of a safetensors file.

    Raises:
        ValueError: if it is none, cut short, or does not match its checksum.
    """
    verify_checkpoint(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); copy or write it again") from error


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a ``.pth`` file without running any code that it may contain.

    Returns:
        Tensors under dotted names; nested dictionaries give the parts of the names.

    Raises:
        ValueError: if the file is no pickle, or holds objects other than tensors, containers,
            ``argparse.Namespace`` (which DINO, MAE and timm put beside their weights) and mmengine's log
            histories.
    """
    try:
        verify_checkpoint(path)
        content = _load_weights_only(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused: it is no plain file of weights, and unpickling it could run code "
            f"({_reason(error)}). If you trust its origin, load it where it was made and save only "
            "its state_dict()."
        ) from error
    except Exception as error:  # torch's readers raise nearly every type on broken files
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is not a readable checkpoint ({_reason(error)}); copy or write it again") from error
    return dict(_named_tensors(content, path))


def _load_weights_only(path: Path) -> Any:
    """Maps tensors from the file where its format allows: an optimizer's state, which is not read, costs nothing."""
    mapped = zipfile.is_zipfile(path)
    if mapped:
        _check_archive(path)
    # the context takes away whatever it is given, also what was allowed before, for mmengine
    allowed = {argparse.Namespace, *allowed_types()}.difference(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _reason(error: Exception) -> str:
    """The object that was refused, or the start of the message."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    return f"it holds {refused.group(1)}" if refused else str(error).split("\n")[0][:200]


def _check_archive(path: Path) -> None:
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


def _named_tensors(content: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
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
