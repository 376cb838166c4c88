"""Times alternatives that compute the same, in turns, for a fraction of a second."""

import math
import time
from collections.abc import Callable, Mapping

_TRIALS = 2  # another program may have the processor during one of them
_TURNS = 4
_HOPELESS = 3.0  # times as long as the quickest, in short trials


def race(alternatives: Mapping[str, Callable[[int], object]], short: int, long: int) -> dict[str, float]:
    """Seconds of the quickest of several runs of each alternative; they take turns, since other programs come and go.

    Args:
        alternatives: name → function of the amount of work.
        short: amount of two first runs, after one that warms up. What takes three times as long as the quickest in both
            is not tried again, and gets the time that it would take.
        long: amount of the runs that count.
    """
    for run in alternatives.values():
        run(short)
    trials = [{name: _seconds(run, short) for name, run in alternatives.items()} for _ in range(_TRIALS)]
    first = {name: min(trial[name] for trial in trials) for name in alternatives}
    quickest = min(first.values())
    left = [name for name in alternatives if first[name] <= _HOPELESS * quickest]
    best = dict.fromkeys(left, math.inf)
    for _ in range(_TURNS):
        for name in left:
            best[name] = min(best[name], _seconds(alternatives[name], long))
    return {name: best.get(name, first[name] * min(best.values()) / quickest) for name in alternatives}


def _seconds(run: Callable[[int], object], amount: int) -> float:
    start = time.perf_counter()
    run(amount)
    return time.perf_counter() - start
