"""``--gpus N``: a command as N processes of this machine, one a GPU, or on the CPU where there is none."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from mst_transfer.runs import launch, stop


def start(args: argparse.Namespace, module: Sequence[str], words: Sequence[str] | None) -> int | None:
    """Runs ``-m MODULE WORDS`` as ``args.gpus`` processes; the exit status, None: this process is to do the work."""
    if args.gpus == 1 or args.launcher != "none":
        return None
    return run_group(args.gpus, ["-m", *module, *(words or ())])


def visible_gpus(number: int) -> int:
    """Counts them; ValueError if fewer than one process, or more than these, are asked for."""
    import torch

    gpus = torch.cuda.device_count()
    if number < 1 or 0 < gpus < number:
        raise ValueError(
            f"{number} GPUs asked for, {gpus or 'none'} are visible. Next step: ask for 1 to {gpus or 'any'}"
        )
    return gpus


def run_group(number: int, words: Sequence[str]) -> int:
    """Runs a Python program as so many processes to their end; errors as of ``visible_gpus``.

    Environment: ``NNODES`` (1), ``NODE_RANK`` (0), ``MASTER_ADDR``, ``PORT`` (a free one; 29500 for several nodes), and
    ``MAX_RESTARTS`` (0): how often all are started again if one fails.

    Returns:
        The exit status, as ``mst_transfer.runs.stop.run_torchrun``.
    """
    env = os.environ
    if not visible_gpus(number):
        cores = launch.num_cores()
        print(f"no GPU here; {number} processes on the CPU ({cores} cores), joined by gloo", file=sys.stderr)
        env.setdefault("OMP_NUM_THREADS", str(max(1, cores // number)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] if env.get("NNODES", "1") == "1" else 29500
    options = dict(nnodes=env.get("NNODES", 1), node_rank=env.get("NODE_RANK", 0), nproc_per_node=number)
    options |= dict(master_addr=env.get("MASTER_ADDR", "127.0.0.1"), master_port=env.get("PORT", port))
    options |= dict(max_restarts=env.get("MAX_RESTARTS", 0))
    torchrun = [f"--{name}={value}" for name, value in options.items()]
    return stop.run_torchrun([*torchrun, *words, "--launcher", "pytorch"])
