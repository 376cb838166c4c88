"""Runs that are killed with SIGKILL and resumed end with the same bits as a run in peace, in all three tasks."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import tiny_tasks
from compare_runs import check_equal
from programs import Program, kill_in, start_script

TASKS = ("pretrain", "seg", "det")
DEADLINE = 300.0  # seconds that a run may take
STEP = b"eta: "  # in the log, once a step
FILES_A_SAVE = {"pretrain": 6, "seg": 2, "det": 2}  # checkpoint, pointer; backbones of two networks by two names

pytestmark = pytest.mark.faults


def steps_in(log: Path) -> int:
    """Steps that all runs so far have logged."""
    return log.read_bytes().count(STEP) if log.exists() else 0


def end_of(program: Program, work_dir: Path, steps: int | None = None, pause: float = 0.0, nth_file: int = 0) -> str:
    """Waits for the end of a run, or brings it about.

    Args:
        program: the run.
        work_dir: where it writes.
        steps: after how many more steps it is killed; None: not for that.
        pause: seconds between the last of these and the kill.
        nth_file: it is killed when it writes a file for so many times; 0: not for that.

    Returns:
        ``done``, ``killed``, or ``killed in writing``.
    """
    began, seen, writing, killed = time.monotonic(), 0, False, "killed"
    until = None if steps is None else steps_in(program.log) + steps
    leftovers = set(work_dir.glob(".*.tmp"))
    while program.alive():
        now = set(work_dir.glob(".*.tmp")) - leftovers
        seen, writing = seen + (bool(now) and not writing), bool(now)
        if until is not None and steps_in(program.log) >= until:
            time.sleep(pause)
            killed = "killed in writing" if set(work_dir.glob(".*.tmp")) - leftovers else "killed"
            program.kill()
            until = None
        elif nth_file and seen >= nth_file:
            killed, nth_file = "killed in writing", 0
            program.kill()
        assert time.monotonic() - began < DEADLINE, program.tail()
        time.sleep(0.0003 if nth_file else 0.003)
    (code,) = program.end()
    assert code in (0, -signal.SIGKILL), (code, program.tail())
    return killed if code else "done"


def kill_again_and_again(task: str, folder: Path, kills: int) -> Counter[str]:
    """A run in peace, and runs that are killed and resumed until they have ended; all end alike.

    Each is killed with its workers: a random number of steps further and a random moment after that, or as soon as a
    file is being written under a temporary name, or on the way from there to its final name. Moments are counted in
    steps and in files, not in seconds, so that runs get further on slow machines too.
    """
    config, chance = tiny_tasks.write_config(task, folder), random.Random(f"{task} {kills}")
    words = tiny_tasks.command(task, config, folder / "whole", [], resume=False)
    assert end_of(Program(task, words, folder / "whole.log"), folder / "whole") == "done"
    ends: Counter[str] = Counter()
    while ends["killed"] + ends["killed in writing"] < kills:
        work_dir = folder / f"killed_{ends['done']}"
        log, end = work_dir.with_suffix(".log"), ""
        while end != "done":
            options = [f"train_dataloader.num_workers={chance.choice((0, 1, 2))}"]
            words = tiny_tasks.command(task, config, work_dir, options, resume=True)
            way, nth, in_file = chance.random(), chance.randint(1, 2 * FILES_A_SAVE[task]), None
            if way >= 0.8:
                in_file = partial(kill_in, chance.choice(("fsync", "replace")), nth)
            program = Program(task, words, log, prepare=in_file)
            if way < 0.5:
                end = end_of(program, work_dir, steps=chance.randint(0, 9), pause=chance.uniform(0.0, 0.1))
            else:
                end = end_of(program, work_dir, nth_file=nth if in_file is None else 0)
            ends["killed in writing" if in_file is not None and end == "killed" else end] += 1
            assert ends.total() < 10 * kills, f"no progress: {ends}"
        check_equal(folder / "whole", work_dir)
    return ends


@pytest.mark.parametrize("task", TASKS)
def test_killed_at_random_moments(task: str, tmp_path: Path) -> None:
    """Twenty kills and more, a good part of them while a checkpoint is written; weights, optimizer, losses equal."""
    ends = kill_again_and_again(task, tmp_path, 20)
    print(f"{task}: {dict(ends)}")
    assert ends["killed in writing"] >= 5


@pytest.mark.parametrize("task", TASKS)
def test_killed_at_the_command_line(task: str, tmp_path: Path) -> None:
    """The same through the scripts of ``tools``, a process of its own for every start."""
    config, chance = tiny_tasks.write_config(task, tmp_path), random.Random(task)

    def start(name: str, options: list[str], resume: bool) -> subprocess.Popen:
        words = tiny_tasks.command(task, config, tmp_path / name, options, resume)
        return start_script("pretrain.py" if task == "pretrain" else "train.py", words, tmp_path / f"{name}.log")

    assert start("whole", [], resume=False).wait(timeout=300) == 0
    work_dir = tmp_path / "killed"
    for workers in (2, 0, 1):
        process = start("killed", [f"train_dataloader.num_workers={workers}"], resume=True)
        before = set(work_dir.glob("*.pth"))
        while set(work_dir.glob("*.pth")) <= before and process.poll() is None:  # a checkpoint further, then
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.5))
        assert process.poll() is None, (tmp_path / "killed.log").read_text()[-2000:]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start("killed", [], resume=True).wait(timeout=300) == 0
    check_equal(tmp_path / "whole", work_dir)
