"""Two machines, played by two launchers of this one: what is lost comes back, and nothing waits for ever."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import programs
import pytest
import tiny_tasks
from compare_runs import check_equal
from process_groups import free_port
from programs import Program

ROOT = Path(__file__).resolve().parents[2]
VERBS = {"pretrain": "pretrain", "seg": "train"}
LENGTH = {"pretrain": ["train_cfg.max_epochs=20"], "seg": []}
SOON = 300.0  # seconds: for what takes a few, and the imports of a busy machine

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")


class Node:
    """A machine of one process.

    Args:
        name: of its log, and of its processes.
        command: what it is told.
        environment: in which.
    """

    def __init__(self, name: Path, command: list[str], environment: dict[str, str]) -> None:
        self.log, self.command = name.with_suffix(".log"), command
        self.environment = {**os.environ, **environment, "NODE_OF_TEST": str(name)}
        self.start()

    def start(self) -> None:
        """The same command as ever."""
        with open(self.log, "a") as log:
            self.launcher = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL to the launcher, torchrun, the process and its workers at once."""
        mark = f"NODE_OF_TEST={self.environment['NODE_OF_TEST']}\0".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in path.read_bytes() + b"\0":
                    os.kill(int(path.parent.name), signal.SIGKILL)
        self.launcher.wait()

    def said(self) -> str:
        """What it has printed since its first start."""
        return self.log.read_text(errors="replace")


def wait_until(so: Callable[[], object], *nodes: Node) -> None:
    """Until something is so; these machines must not end before."""
    end = time.monotonic() + SOON
    while not so():
        for node in nodes:
            assert node.launcher.poll() is None and time.monotonic() < end, node.said()[-3000:]
        time.sleep(0.02)


def steps(*nodes: Node) -> int:
    """Steps of training in all logs."""
    return sum(node.said().count("lr: ") for node in nodes)


def listens(port: str) -> bool:
    """Whether torchrun's rendezvous is there."""
    with suppress(OSError), socket.create_connection(("localhost", int(port)), timeout=1):
        return True
    return False


@pytest.fixture
def begin() -> Iterator[Callable[..., list[Node]]]:
    """Starts a task on two machines; the first one has the rendezvous."""
    nodes: list[Node] = []

    def begin(task: str, config: Path, work_dir: Path, **environment: str) -> list[Node]:
        words = tiny_tasks.command(task, config, work_dir, LENGTH[task], resume=True)
        command = [sys.executable, "-m", "mst_transfer.cli.main", VERBS[task], *words]
        environment |= dict(NNODES="2", MASTER_ADDR="localhost", PORT=str(free_port()), OMP_NUM_THREADS="1")
        environment |= dict(PYTHONPATH=str(ROOT))
        first = Node(work_dir.with_name(f"{work_dir.name}_first"), command, environment)
        nodes.append(first)
        wait_until(lambda: listens(environment["PORT"]), first)
        nodes.append(Node(work_dir.with_name(f"{work_dir.name}_second"), command, environment))
        return nodes[-2:]

    yield begin
    for node in nodes:
        node.kill()


@pytest.mark.faults
@pytest.mark.parametrize("task", VERBS)
def test_a_lost_machine_comes_back_and_nothing_is_lost(task: str, begin: Callable, tmp_path: Path) -> None:
    """First one that the other waits for; then the one that has the rendezvous, without which the other ends."""
    config, work_dir = tiny_tasks.write_config(task, tmp_path), tmp_path / "killed"
    whole = begin(task, config, tmp_path / "whole")
    assert [node.launcher.wait(SOON) for node in whole] == [0, 0], whole[0].said()[-3000:]
    first, second = nodes = begin(task, config, work_dir, MAX_RESTARTS="3")
    for lost in (second, first):
        seen = steps(*nodes)
        wait_until(lambda seen=seen: steps(*nodes) > seen + 6 and list(work_dir.glob("*.pth")), *nodes)
        lost.kill()
        assert steps(*nodes) < steps(*whole)
        if lost is first:
            assert second.launcher.wait(SOON) == 1 and "RendezvousConnectionError" in second.said()
            second.start()
        lost.start()
    assert [node.launcher.wait(SOON) for node in nodes] == [0, 0], first.said()[-3000:] + second.said()[-3000:]
    assert "Connection closed by peer" in first.said() or "Connection reset" in first.said()
    check_equal(tmp_path / "whole", work_dir)


@pytest.mark.faults
def test_a_machine_that_waits_in_vain_ends_and_says_so(begin: Callable, tmp_path: Path) -> None:
    config = tiny_tasks.write_config("pretrain", tmp_path)
    first, second = begin("pretrain", config, tmp_path / "run", PET_RDZV_CONF="join_timeout=2")
    second.kill()
    assert first.launcher.wait(SOON) == 1 and "RendezvousTimeoutError" in first.said()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "old"), [("pretrain", 1), pytest.param("seg", 0, marks=pytest.mark.faults)])
def test_a_new_machine_goes_on_with_what_the_other_knows(task: str, old: int, tmp_path: Path) -> None:
    """Whatever it is told about the beginning: the other one's torchrun has counted a failure, its own has not."""
    config, (whole, part) = tiny_tasks.write_config(task, tmp_path), (tmp_path / "whole", tmp_path / "part")
    length = ["train_cfg.max_epochs=2"] if task == "pretrain" else ["train_cfg.max_iters=6"]
    words = tiny_tasks.command(task, config, whole, length, resume=False)
    assert (run := Program(task, words, tmp_path / "whole.log", 2)).end() == [0, 0], run.tail()
    shutil.copytree(whole, part)
    for path in (part / "iter_6.pth", part / "last_checkpoint", *part.glob("iter_6_*")):
        path.unlink(missing_ok=True)
    words = [*tiny_tasks.command(task, config, part, length, resume=False), "--fresh"]
    run = Program(task, words, tmp_path / "part.log", 2, partial(programs.start_again_one_of_two_machines, old))
    assert run.end() == [0, 0], run.tail()
    assert not list(part.glob("earlier_*")) and "Saving checkpoint at 6 iterations" in run.tail()
    check_equal(whole, part)
