"""Runs that are killed with SIGKILL and resumed end with the same bits as a run in peace, in all three tasks."""

import random
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import tiny_tasks
from compare_runs import check_equal
from programs import Program, kill_in

KILLS = 20  # and more
DEADLINE = 300.0  # seconds that a run may take
STEP = b"(train)"  # in the log, once a step; not in validations, which each resumed run may have to do again
FILES_A_SAVE = {"pretrain": 6, "seg": 2, "det": 2}  # checkpoint, pointer; backbones of two networks by two names

pytestmark = pytest.mark.faults


def steps_in(log: Path) -> int:
    """Steps that all runs so far have logged."""
    return log.read_bytes().count(STEP) if log.exists() else 0


def end_of(program: Program, steps: int | None = None, pause: float = 0.0) -> str:
    """Waits for the end of a run, or kills it.

    Args:
        program: the run.
        steps: after how many more steps it is killed; None: it may kill itself.
        pause: seconds between the last of these and the kill.

    Returns:
        ``done`` or ``killed``.
    """
    began = time.monotonic()
    until = None if steps is None else steps_in(program.log) + steps
    while program.alive():
        if until is not None and steps_in(program.log) >= until:
            time.sleep(pause)
            program.kill()
            until = None
        assert time.monotonic() - began < DEADLINE, program.tail()
        time.sleep(0.003)
    (code,) = program.end()
    assert code in (0, -signal.SIGKILL), (code, program.tail())
    return "killed" if code else "done"


@pytest.mark.parametrize("task", FILES_A_SAVE)
def test_killed_at_random_moments(task: str, tmp_path: Path) -> None:
    """A run in peace, and runs that are killed and resumed until they have ended; all end alike.

    Each is killed with its workers a random number of steps further and a random moment after that, or on the way of a
    file from its temporary name to its final one. Moments are counted in steps and in files, not in seconds, so that
    runs get further on slow machines too.
    """
    config, chance = tiny_tasks.write_config(task, tmp_path), random.Random(task)
    words = tiny_tasks.command(task, config, tmp_path / "whole", [], resume=False)
    assert end_of(Program(task, words, tmp_path / "whole.log")) == "done"
    ends: Counter[str] = Counter()
    while ends["killed"] + ends["killed in writing"] < KILLS:
        work_dir = tmp_path / f"killed_{ends['done']}"
        end = ""
        while end != "done":
            options = [f"train_dataloader.num_workers={chance.choice((0, 1, 2))}"]
            words = tiny_tasks.command(task, config, work_dir, options, resume=True)
            in_file = None
            if chance.random() >= 0.5:
                nth = chance.randint(1, 2 * FILES_A_SAVE[task])
                in_file = partial(kill_in, chance.choice(("fsync", "replace")), nth)
            program = Program(task, words, work_dir.with_suffix(".log"), prepare=in_file)
            if in_file is None:
                end = end_of(program, chance.randint(0, 9), chance.uniform(0.0, 0.1))
            else:
                end = end_of(program).replace("killed", "killed in writing")
            ends[end] += 1
            assert ends.total() < 10 * KILLS, f"no progress: {ends}"
        check_equal(tmp_path / "whole", work_dir)
    print(f"{task}: {dict(ends)}")
    assert ends["killed in writing"] >= 5
