"""Coverage-guided fuzzing in one process: inputs that reach new lines are kept and mutated further.

Lines are seen with ``sys.settrace`` in the modules under test alone. Any exception that is not allowed, and any input
that takes too long, is a finding: the input is shown, so that it can become a test.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

Line = tuple[str, int, int]  # file, line before, line


@dataclass
class Fuzzer:
    """What is fuzzed, and what was found.

    Args:
        target: called with an input.
        mutate: makes a new input of one or two others, by the given random numbers.
        allowed: exceptions that are an answer.
        traced: parts of the file names whose lines count.
        seconds_each: an input that takes longer is a finding.
        seed: of all random draws.
    """

    target: Callable[[Any], Any]
    mutate: Callable[[random.Random, Any, Any], Any]
    allowed: tuple[type[BaseException], ...]
    traced: tuple[str, ...]
    seconds_each: float = 20.0
    seed: int = 0
    seen: set[Line] = field(default_factory=set)
    corpus: list[Any] = field(default_factory=list)
    runs: int = 0
    findings: dict[str, Any] = field(default_factory=dict)

    def run(self, seeds: Sequence[Any], seconds: float) -> None:
        """Tries the seeds, then mutations of what is in the corpus, until the time is up."""
        rng = random.Random(self.seed)
        until = time.monotonic() + seconds
        for one in seeds:
            self._try(one)
            self.corpus.append(one)
        while time.monotonic() < until and len(self.findings) < 20:
            first = rng.choice(self.corpus[-50:] if rng.random() < 0.5 else self.corpus)
            candidate = self.mutate(rng, first, rng.choice(self.corpus))
            if self._try(candidate):
                self.corpus.append(candidate)

    def _try(self, candidate: Any) -> bool:
        """Whether the input reached a line from another line than ever before."""
        lines: set[Line] = set()
        self.runs += 1
        former = signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, self.seconds_each)
        sys.settrace(self._tracer(lines))
        try:
            self.target(candidate)
        except self.allowed:
            pass
        except BaseException as error:  # anything else is what this looks for
            if isinstance(error, KeyboardInterrupt):
                raise
            sys.settrace(None)
            self.findings.setdefault(_place(error), candidate)
        finally:
            sys.settrace(None)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        new = lines - self.seen
        self.seen |= new
        return bool(new)

    def _tracer(self, lines: set[Line]) -> Callable:
        def globally(frame: FrameType, event: str, argument: Any) -> Callable | None:
            name = frame.f_code.co_filename
            if not any(part in name for part in self.traced):
                return None
            before = frame.f_lineno

            def locally(inner: FrameType, kind: str, value: Any) -> Callable:
                nonlocal before
                if kind == "line":
                    lines.add((name, before, inner.f_lineno))
                    before = inner.f_lineno
                return locally

            return locally

        return globally


class TooLongError(BaseException):
    """An input took too long; no handler of the code under test must catch it."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLongError


def _place(error: BaseException) -> str:
    """Type and place of a finding: one input is enough for each."""
    trace = error.__traceback__
    places = []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {str(error)[:200]!r} at {' < '.join(places[::-1][:4])}"
