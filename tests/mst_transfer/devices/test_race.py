"""The quickest of alternatives is found; the hopeless cost no more than a short run."""

import time

import pytest

from mst_transfer.devices.race import race


def test_the_quickest_is_found_and_the_hopeless_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ran = [0.0], []

    def works(name: str, speed: float):
        def run(amount: int) -> None:
            ran.append((name, amount))
            clock[0] += amount / speed + (100.0 if len([n for n, _ in ran if n == name]) == 1 else 0.0)  # its set-up

        return run

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    speeds = dict(slow=1.0, quick=2.0, hopeless=0.1)
    found = race({name: works(name, speed) for name, speed in speeds.items()}, 10, 100)
    assert found["slow"] == pytest.approx(100.0) and found["quick"] == pytest.approx(50.0)
    assert found["hopeless"] > 3 * found["quick"] and ("hopeless", 100) not in ran
    turns = [name for name, amount in ran if amount == 100]
    assert turns == ["slow", "quick"] * (len(turns) // 2) and len(turns) > 2


def test_one_interruption_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program has the processor while the quickest does its first short run."""
    clock, runs = [0.0], {"slow": 0, "quick": 0}

    def works(name: str, speed: float):
        def run(amount: int) -> None:
            runs[name] += 1
            clock[0] += amount / speed + (1000.0 if (name, runs[name]) == ("quick", 2) else 0.0)

        return run

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    found = race({"slow": works("slow", 1.0), "quick": works("quick", 2.0)}, 10, 100)
    assert found == {"slow": pytest.approx(100.0), "quick": pytest.approx(50.0)}
