"""Says how far a long piece of work is."""

import sys
import time

from mmengine.dist import is_main_process

_NOTICE_SECONDS = 5.0


class Progress:
    """Says on stderr every five seconds how far the main process is, and how long the rest will take.

    ``title`` is what is counted up to ``total``, e.g. ``checking masks of data/x:``.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.start = self.last = time.monotonic()

    def __call__(self, done: int, more: str = "") -> None:
        """Notes that ``done`` of all are behind us."""
        now = time.monotonic()
        if done and now - self.last > _NOTICE_SECONDS and is_main_process():
            self.last = now
            left = (now - self.start) / done * (self.total - done)
            print(f"{self.title} {done:,} of {self.total:,}{more}, {left:.0f} s left", file=sys.stderr, flush=True)
