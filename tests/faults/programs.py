"""Programs of one or two processes that are told to stop, fail or are killed: started from one server of forks."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import tiny_tasks
from process_groups import fork_server, free_port, group_environment

TOOLS = Path(__file__).resolve().parents[2] / "tools"
HEADS = ("mmdet.datasets", "mmdet.models", "mmseg.datasets", "mmseg.models", "mst_transfer.engine.resume.loops")


def _enter(task: str, words: list[str], log: Path, environment: dict[str, str], prepare: Callable | None) -> None:
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1), os.dup2(handle, 2)
    os.environ.update(environment, OMP_NUM_THREADS="1")
    import torch

    torch.set_num_threads(1)
    main = tiny_tasks.entry(task)
    if prepare is not None:
        prepare()
    status = main(words)
    sys.stdout.flush()
    sys.exit(status)


def start_script(name: str, words: list[str], log: Path, **environment: str) -> subprocess.Popen:
    """A script of ``tools`` in a session of its own, whose output is added to the log."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment}
    command = ["bash", str(TOOLS / name), *words]
    with open(log, "a") as handle:
        return subprocess.Popen(command, env=settings, stdout=handle, stderr=handle, start_new_session=True)


class Program:
    """A run of ``mst-pretrain`` or ``mst train``.

    Args:
        task: ``pretrain``, ``seg`` or ``det``.
        words: its command line.
        log: where all processes write.
        processes: how many; two and more are joined by gloo.
        prepare: called in each process before it begins; of a module that can be imported.
    """

    def __init__(
        self, task: str, words: list[str], log: Path, processes: int = 1, prepare: Callable | None = None
    ) -> None:
        port, self.log, self.members = free_port(), log, []
        for rank in range(processes):
            group = group_environment(rank, processes, port) if processes > 1 else {}
            launcher = ["--launcher", "pytorch"] if processes > 1 else []
            arguments = (task, [*words[:1], *launcher, *words[1:]], log, group, prepare)
            self.members.append(fork_server(*HEADS).Process(target=_enter, args=arguments))
            self.members[-1].start()

    def alive(self) -> bool:
        """Whether any process is."""
        return any(member.is_alive() for member in self.members)

    def send(self, rank: int, number: int) -> None:
        """A signal to one process."""
        os.kill(self.members[rank].pid, number)

    def kill(self) -> None:
        """SIGKILL to the first process and its workers."""
        pid = self.members[0].pid
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # not yet a group of its own, or already gone
            self.members[0].kill()

    def wait_for(self, text: str, timeout: float = 600) -> None:
        """Until the log says so."""
        end = time.monotonic() + timeout
        while not (self.log.is_file() and text in self.log.read_text(errors="replace")):
            assert self.alive() and time.monotonic() < end, self.tail()
            time.sleep(0.01)

    def end(self, timeout: float = 600) -> list[int | None]:
        """Exit codes of all processes; None for one that has not ended in time, and is killed."""
        until = time.monotonic() + timeout
        for member in self.members:
            member.join(max(0.0, until - time.monotonic()))
        codes = [member.exitcode for member in self.members]
        for member in self.members:
            if member.is_alive():
                member.kill()
                member.join()
        return codes

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.is_file() else "no log"


def slow_steps(seconds: float = 0.05) -> None:
    """Each step of a training takes so much longer, so that signals, or another run, find it at work."""
    from mmengine.optim import OptimWrapper

    step = OptimWrapper.zero_grad

    def zero_grad(self: Any, **kwargs: Any) -> None:
        time.sleep(seconds)
        step(self, **kwargs)

    OptimWrapper.zero_grad = zero_grad


def kill_in(name: str, nth: int) -> None:
    """The process kills itself in the n-th call of ``os.fsync`` or ``os.replace``, a file being half done."""
    original, calls = getattr(os, name), []

    def deadly(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(os, name, deadly)


def break_rank_one() -> None:
    """The second process raises an error in its fourth step."""
    from mmengine.runner import Runner

    call = Runner.call_hook

    def call_hook(self: Any, name: str, **kwargs: Any) -> None:
        if name == "before_train_iter" and self.rank == 1 and self.iter == 3:
            raise KeyError("an error of one process alone")
        call(self, name, **kwargs)

    Runner.call_hook = call_hook


def start_again_one_of_two_machines(rank: int) -> None:
    """Two machines of one process: torchrun has started again that of this rank, and started the other anew."""
    os.environ.update(GROUP_WORLD_SIZE="2", TORCHELASTIC_RESTART_COUNT=str(int(os.environ["RANK"] == str(rank))))


def note_weights(self: Any, train: Callable) -> Any:
    """Trains, and leaves a digest of this process's weights and buffers in the work dir."""
    trained = train(self)
    digest = hashlib.sha256()
    for name, tensor in self.model.state_dict().items():
        digest.update(name.removeprefix("module.").encode() + tensor.detach().cpu().numpy().tobytes())
    (Path(self.work_dir) / f"weights_of_{self.rank}").write_text(digest.hexdigest())
    return trained


def poison_rank_one(way: str, updates: Container[int]) -> None:
    """Some losses of the second process are no number, or its gradients infinite, in that process alone."""
    import torch
    from mmengine.runner import Runner

    from mst_transfer.engine.nonfinite import GuardedOptimWrapper

    update, step, train = GuardedOptimWrapper.update_params, GuardedOptimWrapper.step, Runner.train
    count = 0

    def poisoned() -> bool:
        return count in updates and os.environ.get("RANK") == "1"

    def update_params(self: Any, loss: Any, *args: Any) -> None:
        nonlocal count
        count += 1
        if way == "loss" and poisoned():
            self._loss = torch.tensor(float("nan"))
        update(self, loss, *args)

    def poisoned_step(self: Any, **kwargs: Any) -> None:
        if way == "gradient" and poisoned():  # after the processes have brought theirs together
            self.optimizer.param_groups[0]["params"][0].grad.view(-1)[0] = float("inf")
        step(self, **kwargs)

    GuardedOptimWrapper.update_params, GuardedOptimWrapper.step = update_params, poisoned_step
    Runner.train = lambda self: note_weights(self, train)
