"""What a target is: a layout that another library loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mst_transfer.export.original import Original
from mst_transfer.export.verify import Agreement


@dataclass(frozen=True)
class Options:
    """What some targets let a user choose.

    Attributes:
        size: height and width in pixels of a graph that takes no other; None: the checkpoint's own.
        with_normalisation: whether a graph takes bytes (0 to 255) and normalises them itself.
    """

    size: tuple[int, int] | None = None
    with_normalisation: bool = False


@dataclass(frozen=True)
class Target:
    """A layout.

    Attributes:
        name: on the command line.
        suffixes: of its files; empty for a folder.
        what: in words, for help and messages.
        write: writes a backbone to a path; refuses what the layout has no place for.
        verify: loads the path again and compares; raises if anything differs.
        usage: lines of Python that load the path.
    """

    name: str
    suffixes: tuple[str, ...]
    what: str
    write: Callable[[Original, Path, Options], None]
    verify: Callable[[Original, Path, Options], Agreement]
    usage: Callable[[Original, Path], str]
