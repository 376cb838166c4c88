"""Converts: write under a temporary name, load again with the target, compare, and only then keep."""

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_transfer.export import TARGETS
from mst_transfer.export.source_model import ConversionError, SourceModel
from mst_transfer.export.verify import Agreement
from mst_transfer.files.atomic_files import give_usual_permissions


@dataclass(frozen=True)
class Target:
    """A layout that another library loads."""

    name: str  # on the command line
    suffixes: tuple[str, ...]  # of its files; empty for a folder
    write: Callable[..., None]  # writes a backbone to a path, with the target's options; refuses what has no place
    verify: Callable[..., Agreement]  # takes the same, loads the path again and compares; raises if anything differs
    usage: Callable[[SourceModel, Path], str]  # lines of Python that load the path


def target_named(name: str) -> Target:
    """The target of a name; its module is imported only then."""
    module, attribute = TARGETS[name]
    return getattr(importlib.import_module(f"mst_transfer.export.{module}"), attribute)


def check_out(out: str | Path, target: Target, overwrite: bool) -> Path:
    """Raises a ConversionError if a target cannot be written to a path; asked before any work."""
    out = Path(out)
    if target.suffixes and out.suffix not in target.suffixes:
        raise ConversionError(f"{out}: a file for {target.name} ends in {' or '.join(target.suffixes)}")
    if out.exists() and out.is_dir() == bool(target.suffixes):
        raise ConversionError(f"{out} is a {'folder' if out.is_dir() else 'file'}; {target.name} writes the other")
    if out.exists() and not overwrite:
        raise ConversionError(f"{out} exists; choose another name, or pass --overwrite to replace it")
    return out


def convert(
    original: SourceModel,
    target: Target,
    out: str | Path,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Agreement:
    """Writes a backbone for a target and checks what was written.

    Args:
        dtype: precision of the stored tensors; None: as they are. The comparison is then with the rounded backbone.
        **options: of the target: those of ``mst_transfer.export.onnx_graph.write``.

    Raises:
        ConversionError: the target cannot hold the backbone, or computes other features; nothing is left behind.
    """
    out = check_out(out, target, overwrite)
    if dtype is not None and target.name == "onnx":
        raise ConversionError("dtype is for files of weights; a graph is written in float32")
    rounded = original.rounded(dtype)
    with staged(out) as temporary:
        target.write(rounded, temporary, **options)
        return target.verify(rounded, temporary, **options)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A path to write a file or a folder to; it becomes ``out`` if the block ends without an exception.

    The path has the name of ``out`` (libraries look at suffixes) and lies in a temporary folder beside it, so that the
    final step is a rename. Parents of ``out`` are made.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        temporary = folder / out.name
        yield temporary
        for file in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            give_usual_permissions(file)
        if out.is_dir():
            os.replace(out, folder / "replaced")
        os.replace(temporary, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
