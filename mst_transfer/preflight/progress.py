"""A line now and then on what takes long; nothing about what is quick."""

from __future__ import annotations

import sys
import time


class Progress:
    """Says on stderr how far a piece of work is, first after two seconds, then every five.

    Args:
        what: the work, e.g. ``masks of data/x``.
        total: number of items.
    """

    def __init__(self, what: str, total: int, first_after: float = 2.0, every: float = 5.0) -> None:
        self._what, self._total, self._every = what, total, every
        self._next = time.monotonic() + first_after

    def update(self, done: int) -> None:
        """Notes that ``done`` items are behind us."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            print(f"checking {self._what}: {done} of {self._total}", file=sys.stderr, flush=True)
