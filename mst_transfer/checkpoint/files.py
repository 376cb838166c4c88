"""Tensors of any safetensors file or pickle, read without running what the file may hold."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mst_transfer.checkpoint.bounds import check_archive, named_tensors
from mst_transfer.compat.serialization import allowed_types
from mst_transfer.files.checksums import verify_checkpoint


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors and the metadata of a safetensors file.

    Raises:
        ValueError: if it is none, cut short, or does not match its checksum in ``checkpoints.sha256``.
    """
    verify_checkpoint(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); copy or write it again") from error


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a ``.pth`` file without running any code that it may contain.

    Args:
        path: a file written by ``torch.save``.

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
    return dict(named_tensors(content, path))


def _load_weights_only(path: Path) -> Any:
    """Loads with an allow-list; that of mmengine's checkpoints only for a file that asks for it.

    Tensors are mapped from the file, not read, where its format allows: an optimizer's state costs nothing then.
    """
    mapped = zipfile.is_zipfile(path)
    if mapped:
        check_archive(path)

    def load(*allowed: Any) -> Any:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)

    try:
        return load(argparse.Namespace)
    except pickle.UnpicklingError as error:
        if "mmengine." not in _reason(error):
            raise
        return load(argparse.Namespace, *allowed_types())


def _reason(error: Exception) -> str:
    """The object that was refused, or the start of the message."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    return f"it holds {refused.group(1)}" if refused else str(error).split("\n")[0][:200]
