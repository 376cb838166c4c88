"""Programs of one or two processes that are told to stop, or lose a process: started from one server of forks."""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_runs


def _enter(task: str, words: list[str], log: Path, environment: dict[str, str], prepare: Callable | None) -> None:
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1), os.dup2(handle, 2)
    os.environ.update(environment, OMP_NUM_THREADS="1")
    import torch

    torch.set_num_threads(1)
    main = tiny_runs.entry(task)
    if prepare is not None:
        prepare()
    status = main(words)
    sys.stdout.flush()
    sys.exit(status)


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
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "mmengine.runner", "mst_transfer.engine.run", "pretrain.train"])
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        self.log, self.members = log, []
        for rank in range(processes):
            group = dict(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes),
                MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
            )  # fmt: skip
            launcher = ["--launcher", "pytorch"] if processes > 1 else []
            arguments = (task, [*words[:1], *launcher, *words[1:]], log, group if processes > 1 else {}, prepare)
            self.members.append(context.Process(target=_enter, args=arguments))
            self.members[-1].start()

    def alive(self) -> bool:
        """Whether any process is."""
        return any(member.is_alive() for member in self.members)

    def send(self, rank: int, number: int) -> None:
        """A signal to one process."""
        os.kill(self.members[rank].pid, number)

    def wait_for(self, text: str, timeout: float = 240) -> None:
        """Until the log says so."""
        end = time.monotonic() + timeout
        while not (self.log.is_file() and text in self.log.read_text(errors="replace")):
            assert self.alive() and time.monotonic() < end, self.tail()
            time.sleep(0.01)

    def end(self, timeout: float = 240) -> list[int | None]:
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


def slow_steps() -> None:
    """Each forward pass of a training takes a little longer, so that signals find the run at work."""
    from mmengine.optim import OptimWrapper

    step = OptimWrapper.zero_grad

    def zero_grad(self: Any, **kwargs: Any) -> None:
        time.sleep(0.05)
        step(self, **kwargs)

    OptimWrapper.zero_grad = zero_grad


def break_rank_one() -> None:
    """The second process raises an error in its fourth step."""
    from mmengine.runner import Runner

    call = Runner.call_hook

    def call_hook(self: Any, name: str, **kwargs: Any) -> None:
        if name == "before_train_iter" and self.rank == 1 and self.iter == 3:
            raise KeyError("an error of one process alone")
        call(self, name, **kwargs)

    Runner.call_hook = call_hook


def poison_rank_one() -> None:
    """The second process's third step has a loss that is no number, while gradients stay as they are."""
    import torch

    from mst_transfer.engine.nonfinite import GuardedOptimWrapper

    update = GuardedOptimWrapper.update_params

    def update_params(self: Any, loss: Any, *args: Any) -> None:
        self.poisoned = getattr(self, "poisoned", 0) + 1
        if self.poisoned in (5, 6) and os.environ.get("RANK") == "1":
            self._loss = torch.tensor(float("nan"))
        update(self, loss, *args)

    GuardedOptimWrapper.update_params = update_params
