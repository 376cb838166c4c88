"""Output that appears whole or not at all, under its final name only after it has been checked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mst_transfer.files.checksums import move_checkpoint


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A path to write a file or a folder to; it becomes ``out`` if the block ends without an exception.

    The path has the name of ``out`` (libraries look at suffixes) and lies in a temporary folder beside it, so that the
    final step is a rename.

    Args:
        out: the file or folder to be made, or replaced at the end; its parents are made.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        temporary = folder / out.name
        yield temporary
        _give_usual_permissions(temporary)
        if out.is_dir():
            os.replace(out, folder / "replaced")
        move_checkpoint(temporary, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _give_usual_permissions(path: Path) -> None:
    """What ``open`` and ``mkdir`` give by default, whatever a library gave to its files."""
    umask = os.umask(0)
    os.umask(umask)
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        os.chmod(file, (0o777 if file.is_dir() else 0o666) & ~umask)
