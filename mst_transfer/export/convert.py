"""Converts: write under a temporary name, load again with the target, compare, and only then keep."""

from __future__ import annotations

import importlib
from pathlib import Path

from mst_transfer.export.errors import ConversionError
from mst_transfer.export.original import Original
from mst_transfer.export.staging import staged
from mst_transfer.export.target import Options, Target
from mst_transfer.export.verify import Agreement

MODULES = {
    "timm": "timm_layout",
    "mmpretrain": "mmpretrain_layout",
    "detectron2": "detectron2_layout",
    "hf": "huggingface_layout",
    "onnx": "onnx_graph",
    "mst": "own_layout",
}


def target_named(name: str) -> Target:
    """The target of a name; its module is imported only then.

    Raises:
        ConversionError: there is none of that name.
    """
    if name not in MODULES:
        raise ConversionError(f"target {name!r} is not one of {tuple(MODULES)}")
    target: Target = importlib.import_module(f"mst_transfer.export.{MODULES[name]}").TARGET
    return target


def check_out(out: str | Path, target: Target, overwrite: bool) -> Path:
    """Whether a target can be written to a path; asked before any work.

    Raises:
        ConversionError: it cannot.
    """
    out = Path(out)
    if target.suffixes and out.suffix not in target.suffixes:
        raise ConversionError(f"{out}: a file for {target.name} ends in {' or '.join(target.suffixes)}")
    if out.exists() and out.is_dir() == bool(target.suffixes):
        raise ConversionError(f"{out} is a {'folder' if out.is_dir() else 'file'}; {target.name} writes the other")
    if out.exists() and not overwrite:
        raise ConversionError(f"{out} exists; choose another name, or pass --overwrite to replace it")
    return out


def convert(
    original: Original,
    target: Target,
    out: str | Path,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    options: Options | None = None,
) -> Agreement:
    """Writes a backbone for a target and checks what was written.

    Args:
        original: the backbone.
        target: what to write it for.
        out: the file, or the folder if the target writes one.
        dtype: precision of the stored tensors; None: as they are. The comparison is then with the rounded backbone.
        overwrite: whether ``out`` may exist.
        options: what only some targets know.

    Returns:
        The comparison.

    Raises:
        ConversionError: the target cannot hold the backbone, or computes other features; nothing is left behind.
    """
    out = check_out(out, target, overwrite)
    if dtype is not None and target.name == "onnx":
        raise ConversionError("dtype is for files of weights; a graph is written in float32")
    rounded = original.rounded(dtype)
    options = options or Options()
    with staged(out) as temporary:
        target.write(rounded, temporary, options)
        return target.verify(rounded, temporary, options)
