"""Runs told to stop finish their step, save, and leave together; a process that is lost ends the others at once."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path

import programs
import pytest
import tiny_tasks
from compare_runs import check_equal
from programs import Program

TASKS = ("pretrain", "seg", "det")
WISHES = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def finish(task: str, config: Path, work_dir: Path, log: Path, processes: int, options: list[str]) -> None:
    words = tiny_tasks.command(task, config, work_dir, options, resume=work_dir.is_dir())
    codes = Program(task, words, log, processes).end()
    assert codes == [0] * processes, log.read_text()[-3000:]


def stop_again_and_again(
    task: str, folder: Path, processes: int, signals: list[int], chance: random.Random, length: Sequence[str] = ()
) -> None:
    """A run in peace, and one that is told to stop by each of the signals; they end alike."""
    config = tiny_tasks.write_config(task, folder)
    finish(task, config, folder / "whole", folder / "whole.log", processes, [*length])
    work_dir, log = folder / "stopped", folder / "stopped.log"
    for number in signals:
        options = [f"train_dataloader.num_workers={chance.choice((0, 1))}", *length]
        words = tiny_tasks.command(task, config, work_dir, options, resume=True)
        program = Program(task, words, log, processes, programs.slow_steps)
        seen = log.read_text().count("lr: ") if log.is_file() else 0
        while log.read_text().count("lr: ") < seen + 2 if log.is_file() else True:  # two steps further
            assert program.alive(), program.tail()
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        program.send(chance.randrange(processes), number)  # one process alone hears it
        status = 130 if number == signal.SIGINT else 75
        assert program.end() == [status] * processes, program.tail()
    finish(task, config, work_dir, log, processes, [*length])
    check_equal(folder / "whole", work_dir)
    assert not list(work_dir.glob("*.tmp"))


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """The quick one: one process of segmentation, whose checkpoints fall into open windows of accumulation."""
    length = ["train_cfg.max_iters=15"]
    stop_again_and_again("seg", tmp_path, 1, [signal.SIGTERM], random.Random(0), length)


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_every_signal_in_every_task(task: str, processes: int, tmp_path: Path) -> None:
    stop_again_and_again(task, tmp_path, processes, list(WISHES), random.Random(f"{task} {processes}"))


def start(task: str, folder: Path, processes: int, prepare: Callable, options: Sequence[str] = ()) -> Program:
    """A new run, in ``run``."""
    words = tiny_tasks.command(task, tiny_tasks.write_config(task, folder), folder / "run", [*options], resume=False)
    return Program(task, words, folder / "log", processes, prepare)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "processes"),
    [("pretrain", 1), *(pytest.param(*one, marks=pytest.mark.faults) for one in [("seg", 1), ("det", 2)])],
)
def test_a_second_run_is_refused_until_the_first_is_gone(task: str, processes: int, tmp_path: Path) -> None:
    """Once the first is killed, its heir begins at once."""
    config = tiny_tasks.write_config(task, tmp_path)
    work_dir, options = tmp_path / "run", ["train_dataloader.num_workers=1"]  # a worker outlives its parent for a while
    options += ["default_hooks.checkpoint.interval=1"]

    def begin(name: str, resume: bool, prepare=None) -> Program:
        words = tiny_tasks.command(task, config, work_dir, options, resume)
        return Program(task, words, tmp_path / name, processes, prepare)

    first = begin("first", False, partial(programs.slow_steps, 0.4))  # longer than a second run takes to begin
    first.wait_for("Saving checkpoint at 2 iterations" if task != "det" else "Saving checkpoint at 1 iterations")
    second = begin("second", True)
    assert second.end() == [1] * processes, second.tail()
    said = f"{work_dir} belongs to a run that is going on: process {first.members[0].pid} on "
    assert second.tail().count(said) == 1, second.tail()
    for rank in range(processes):
        assert first.alive(), first.tail()
        first.send(rank, signal.SIGKILL)
    assert set(begin("third", True).end()) == {0}, (tmp_path / "third").read_text()[-2000:]
    assert not (work_dir / ".run_lock").exists()


@pytest.mark.faults
@pytest.mark.parametrize("task", ["pretrain", "seg"])
def test_an_error_in_one_process_ends_the_other_at_once(task: str, tmp_path: Path) -> None:
    program = start(task, tmp_path, 2, programs.break_rank_one)
    program.wait_for("an error of one process alone")
    codes = program.end(timeout=120)  # the group itself would wait for half an hour
    assert None not in codes and 0 not in codes, (codes, program.tail())


def start_poisoned(task: str, tmp_path: Path, way: str, updates: Container[int], *options: str) -> Program:
    """Two processes of detection or segmentation that run for twelve iterations."""
    length = ["train_cfg.max_iters=12", "train_cfg.val_interval=12"] if task == "seg" else ["train_cfg.max_epochs=4"]
    return start(task, tmp_path, 2, partial(programs.poison_rank_one, way, updates), [*length, *options])


@pytest.mark.slow
@pytest.mark.parametrize(("task", "way"), [("seg", "loss"), ("det", "gradient")])
def test_what_is_not_finite_in_one_process_is_left_out_in_both(task: str, way: str, tmp_path: Path) -> None:
    """Both write down what they had, and end with the same weights."""
    program = start_poisoned(task, tmp_path, way, (6,))
    assert program.end() == [0, 0], program.tail()
    run = tmp_path / "run"
    for rank in range(2):
        record = json.loads((run / f"nonfinite_step_5_rank_{rank}.json").read_text())
        assert record["step"] == 5 and record["rank"] == rank and record["logged"]
        assert len(record["samples"]) == (6 if task == "seg" else 2)  # seg: a step is two iterations of three images
    assert len(list(run.glob("nonfinite_*.json"))) == 2
    assert (run / "weights_of_0").read_text() == (run / "weights_of_1").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["seg", pytest.param("det", marks=pytest.mark.faults)])
def test_too_many_of_them_end_both_and_name_the_checkpoint(task: str, tmp_path: Path) -> None:
    program = start_poisoned(task, tmp_path, "loss", range(6, 100), "+max_nonfinite_steps=2")
    assert program.end() == [1, 1], program.tail()
    said = re.search(r"mst train: 2 steps in a row, up to step \d+.*last good checkpoint: (\S+)\.", program.tail())
    assert said and Path(said[1]).is_file(), program.tail()


def start_launcher(task: str, config: Path, work_dir: Path, log: Path, **environment: str) -> subprocess.Popen:
    """Two processes by a launcher of ``tools``."""
    words = tiny_tasks.command(task, config, work_dir, [], resume=False)
    script = "pretrain.sh" if task == "pretrain" else "dist_train.sh"
    return programs.start_script(script, [words[0], "2", *words[1:]], log, **environment)


def ranks_of(work_dir: Path) -> list[int]:
    """Processes whose command line names a work dir and torchrun's launcher, the launcher's own left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        own = any("torch.distributed.run" in word or "_torchrun" in word for word in words)
        if str(work_dir) in words and "pytorch" in words and not own:
            found.append(int(path.parent.name))
    return sorted(found)


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
@pytest.mark.parametrize("task", ["pretrain", "det"])
def test_a_killed_process_is_started_again_and_nothing_is_lost(task: str, tmp_path: Path) -> None:
    config = tiny_tasks.write_config(task, tmp_path)
    whole = start_launcher(task, config, tmp_path / "whole", tmp_path / "whole.log")
    assert whole.wait(timeout=400) == 0, (tmp_path / "whole.log").read_text()[-3000:]
    work_dir, log = tmp_path / "killed", tmp_path / "killed.log"
    process = start_launcher(task, config, work_dir, log, MAX_RESTARTS="3")
    before = -1
    for rank in (1, 0):
        while len(list(work_dir.glob("*.pth"))) == 0 or log.read_text().count("lr: ") <= before + 4:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.02)
        before = log.read_text().count("lr: ")
        os.kill(ranks_of(work_dir)[rank], signal.SIGKILL)
        time.sleep(3)
    assert process.wait(timeout=400) == 0, log.read_text()[-3000:]
    assert len(re.findall("Signal 9|SIGKILL|exitcode: -9", log.read_text())) >= 1
    check_equal(tmp_path / "whole", work_dir)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_the_launcher_passes_a_wish_on_and_returns_the_status(number: int, tmp_path: Path) -> None:
    config = tiny_tasks.write_config("pretrain", tmp_path)
    config.write_text(config.read_text() + "\ntrain_cfg['max_epochs'] = 500\n")
    work_dir, log = tmp_path / "run", tmp_path / "log"
    process = start_launcher("pretrain", config, work_dir, log)
    while not (log.is_file() and "lr: " in log.read_text()):
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=120) == (130 if number == signal.SIGINT else 75), log.read_text()[-3000:]
    assert (work_dir / "last_checkpoint").is_file() and "stopped by a signal after" in log.read_text()
