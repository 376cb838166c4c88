"""``kill_runs.py TASK FOLDER KILLS``: one run in peace, then the same run killed again and again, and resumed.

The libraries are imported once; every run is a fork of this process, with a process group of its own, and ends by
SIGKILL to the whole group: a random number of steps further and a random moment after that, or as soon as a file is
being written under a temporary name, or on the way from there to its final name. Moments are counted in steps and in
files, not in seconds, so that runs get further on slow machines too. Each start is the command line's, with
``--resume`` and another number of workers. What happened goes to ``FOLDER/killed.json``.
"""

import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import tiny_runs

WORKERS = (0, 1, 2)
DEADLINE = 300.0  # seconds that a run may take
STEP = b"eta: "  # in the log, once a step
FILES_A_SAVE = {"pretrain": 6, "seg": 2, "det": 2}  # checkpoint, pointer; backbones of two networks by two names


def start(main, words: list[str], log: Path, killed_in: str | None = None, at: int = 0) -> int:
    """Forks a run; its process id, which is its group's too.

    Args:
        main: the command line's function.
        words: its arguments.
        log: where what it prints goes.
        killed_in: ``fsync`` or ``replace``: the run kills itself there, the file half done.
        at: at which call of it.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if killed_in is not None:
            _kill_in(killed_in, at)
        status = main(words)
        sys.stdout.flush()
    finally:
        os._exit(status)


def _kill_in(name: str, at: int) -> None:
    original, calls = getattr(os, name), []

    def deadly(*args, **kwargs):
        calls.append(name)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(os, name, deadly)


def is_writing(work_dir: Path) -> bool:
    """Whether a file stands there under a temporary name."""
    try:
        return any(name.endswith(".tmp") for name in os.listdir(work_dir))
    except FileNotFoundError:
        return False


def kill(pid: int) -> None:
    """SIGKILL to the run and its workers."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # not yet a group of its own, or already gone
        os.kill(pid, signal.SIGKILL)


def steps_in(log: Path) -> int:
    """Steps that all runs so far have logged."""
    return log.read_bytes().count(STEP) if log.exists() else 0


def watch(pid: int, work_dir: Path, log: Path, steps: int | None = None, pause: float = 0.0, nth_file: int = 0) -> str:
    """Waits for the run's end, or brings it about.

    Args:
        pid: of the run.
        work_dir: where it writes.
        log: what it prints.
        steps: after how many more steps it is killed; None: not for that.
        pause: seconds between the last of these and the kill.
        nth_file: it is killed when it writes a file for so many times; 0: not for that.

    Returns:
        ``done``, ``killed``, ``killed in writing``, or ``status N`` if it failed.
    """
    began, seen, writing, killed = time.monotonic(), 0, False, "killed"
    until = None if steps is None else steps_in(log) + steps
    leftovers = {path.name for path in work_dir.glob(".*.tmp")}
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if os.WIFSIGNALED(status):
                return killed if os.WTERMSIG(status) == signal.SIGKILL else f"status {status}"
            return "done" if status == 0 else f"status {status}"
        now = {path.name for path in work_dir.glob(".*.tmp")} - leftovers if nth_file else set()
        if now and not writing:
            seen += 1
        writing = bool(now)
        if until is not None and steps_in(log) >= until:
            time.sleep(pause)
            killed = "killed in writing" if is_writing(work_dir) and not leftovers else "killed"
            kill(pid)
            until = None
        elif nth_file and seen >= nth_file:
            killed, nth_file = "killed in writing", 0
            kill(pid)
        elif time.monotonic() - began > DEADLINE:
            kill(pid)
            return "status: too slow"
        time.sleep(0.0003 if nth_file else 0.003)


def main(task: str, folder: Path, kills: int) -> None:
    """Runs; fails if a run fails otherwise than by being killed."""
    config = tiny_runs.write_config(task, folder)
    entry = tiny_runs.entry(task)
    chance = random.Random(f"{task} {kills}")
    began = time.monotonic()
    words = tiny_runs.command(task, config, folder / "whole", [], resume=False)
    log = folder / "whole.log"
    ending = watch(start(entry, words, log), folder / "whole", log)
    assert ending == "done", f"{ending}: see {log}"
    endings: list[str] = []
    rounds = 0
    while sum(ending.startswith("killed") for ending in endings) < kills:
        rounds += 1
        work_dir = folder / f"killed_{rounds}"
        work_dir.mkdir()
        log = folder / f"killed_{rounds}.log"
        while not endings or endings[-1] != "done" or not (work_dir / tiny_runs.LAST[task]).exists():
            options = [f"train_dataloader.num_workers={chance.choice(WORKERS)}"]
            words = tiny_runs.command(task, config, work_dir, options, resume=True)
            way = chance.random()
            nth = chance.randint(1, 2 * FILES_A_SAVE[task])
            if way < 0.5:
                pid, pause = start(entry, words, log), chance.uniform(0.0, 0.1)
                ending = watch(pid, work_dir, log, steps=chance.randint(0, 9), pause=pause)
            elif way < 0.8:
                ending = watch(start(entry, words, log), work_dir, log, nth_file=nth)
            else:
                ending = watch(start(entry, words, log, chance.choice(("fsync", "replace")), nth), work_dir, log)
                ending = ending.replace("killed", "killed in writing")
            endings.append(ending)
            assert not ending.startswith("status"), f"{ending}: see {log}"
            assert len(endings) < 10 * kills, f"no progress: {endings}"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = dict(seconds=time.monotonic() - began, cpu_seconds=used.ru_utime + used.ru_stime)
    report = dict(endings=endings, rounds=rounds, **seconds)
    (folder / "killed.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
