"""Runs functions in groups of gloo processes that are forked from one server, which imports torch once for all."""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

OURS = ["mst_transfer.engine.run", "pretrain.run.train", "pretrain.model", "pretrain.run.loop"]
PRELOADED = ["torch", "mmengine.runner", *OURS]
TIMEOUT_SECONDS, GRACE_SECONDS = 600, 10


def fork_server(*more: str) -> Any:
    """A context of ``multiprocessing`` whose processes begin with the libraries, and more modules, imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, "pytest", *more])  # without effect once the server runs
    return context


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def group_environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """torchrun's variables for one process of a group on this machine."""
    return dict(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1",
    )  # fmt: skip


def _enter(function: Callable, arguments: Sequence, folder: Path, environment: dict[str, str]) -> None:
    """The whole life of a process: its output and what the function returns go to files."""
    name = f"rank_{environment['RANK']}"
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1), os.dup2(log, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    os.chdir(folder)
    torch.save(function(*arguments), folder / f"{name}.pt")
    sys.stdout.flush()


def _wait(members: list[Any]) -> list[int | None]:
    """Exit codes; once one has failed the others wait for it in vain, and have a little time to say so."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while any(member.is_alive() for member in members) and time.monotonic() < end:
        wait([member.sentinel for member in members if member.is_alive()], timeout=1)
        if any(member.exitcode for member in members):
            end = min(end, time.monotonic() + GRACE_SECONDS)
    codes = [member.exitcode for member in members]
    for member in members:
        if member.is_alive():
            member.kill()
    return codes


def run_group(function: Callable, processes: int, folder: Path, *arguments: Any) -> list[Any]:
    """Calls a function in each of several processes that find torchrun's variables in their environment.

    The function is of a module that the processes can import; it joins and leaves the group itself, and returns plain
    containers of tensors, numbers and strings. The folder is new: their working directory, logs and results.
    """
    folder.mkdir(parents=True)
    context, port, members = fork_server(), free_port(), []
    for rank in range(processes):
        environment = group_environment(rank, processes, port)
        members.append(context.Process(target=_enter, args=(function, arguments, folder, environment), daemon=True))
        members[-1].start()
    codes = _wait(members)
    failed = [rank for rank, code in enumerate(codes) if code != 0]
    tails = [f"--- rank {rank}\n{(folder / f'rank_{rank}.log').read_text()[-3000:]}" for rank in failed]
    assert codes == [0] * processes, f"exit codes {codes}\n" + "\n".join(tails)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(processes)]
