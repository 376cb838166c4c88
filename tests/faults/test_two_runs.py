"""Two live runs in one work dir: the second is refused by name; once the first is killed, its heir begins at once."""

import signal
from pathlib import Path

import programs
import pytest
import tiny_tasks
from programs import Program

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("task", "processes"),
    [("pretrain", 1), *(pytest.param(*one, marks=pytest.mark.faults) for one in [("seg", 1), ("det", 2)])],
)
def test_a_second_run_is_refused_until_the_first_is_gone(task: str, processes: int, tmp_path: Path) -> None:
    config = tiny_tasks.write_config(task, tmp_path)
    work_dir, options = tmp_path / "run", ["train_dataloader.num_workers=1"]  # a worker outlives its parent for a while
    options += ["default_hooks.checkpoint.interval=1"]

    def start(name: str, resume: bool, prepare=None) -> Program:
        words = tiny_tasks.command(task, config, work_dir, options, resume)
        return Program(task, words, tmp_path / name, processes, prepare)

    first = start("first", False, programs.slow_steps)
    first.wait_for("Saving checkpoint at 2 iterations" if task != "det" else "Saving checkpoint at 1 iterations")
    second = start("second", True)
    assert second.end() == [1] * processes, second.tail()
    said = f"{work_dir} belongs to a run that is going on: process {first.members[0].pid} on "
    assert second.tail().count(said) == 1, second.tail()
    for rank in range(processes):
        assert first.alive(), first.tail()
        first.send(rank, signal.SIGKILL)
    assert set(start("third", True).end()) == {0}, (tmp_path / "third").read_text()[-2000:]
    assert not (work_dir / ".run_lock").exists()
