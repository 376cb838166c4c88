"""Whether a folder is as it was, to the byte."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from mst_transfer.runs.resuming_runner import close_logs


def contents(folder: Path) -> dict[str, bytes | None]:
    """Relative path → content of every file, None for folders."""
    paths = sorted(folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}


def refusal(main: Callable[[list[str]], int], words: list[str]) -> str:
    """What a command line that ends without success says, on the error stream or in a ``ValueError``; empty otherwise.

    As from a process of its own, it writes nothing to the logs of earlier runs.
    """
    close_logs("/")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return said.getvalue() if main(words) else ""
    except ValueError as error:
        return str(error)
