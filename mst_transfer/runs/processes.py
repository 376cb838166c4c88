"""``--gpus N``: a command as N processes of each machine, one a GPU, or on the CPU where there is none."""

import argparse
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence

from mst_transfer.runs import launch, stop


def start(args: argparse.Namespace, module: Sequence[str], words: Sequence[str] | None) -> int | None:
    """Runs ``-m MODULE WORDS`` as ``args.gpus`` processes; the exit status, None: this process is to do the work."""
    if args.gpus * num_nodes() == 1 or args.launcher != "none":
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


def num_nodes() -> int:
    """Machines that take part: ``NNODES`` of the environment."""
    return int(os.environ.get("NNODES") or 1)


def _address_towards(host: str, port: int) -> str:
    """This machine's address on its way to another one: the others need not know its name."""
    try:
        family, kind, *_, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as route:  # nothing is sent
            route.connect(there)
            here = route.getsockname()[0]
    except OSError as error:
        raise ValueError(f"MASTER_ADDR={host}: there is no way to it from here ({error})") from error
    return host if ipaddress.ip_address(here).is_loopback else here


def run_group(number: int, words: Sequence[str]) -> int:
    """Runs a Python program as so many processes of this machine to their end; errors as of ``visible_gpus``.

    Environment: ``MAX_RESTARTS`` (0): how often all are started again if one fails. For several machines ``NNODES``
    (1), and the same on each ``MASTER_ADDR``, one of them, and ``PORT`` (29500): that one has torchrun's rendezvous,
    where they meet in any order, and again when one that was lost is back. ``NODE_RANK``: 0 on that one, where torchrun
    does not know its own machine by that name.

    Returns:
        The exit status, as ``mst_transfer.runs.stop.run_torchrun``.
    """
    env, nodes = os.environ, num_nodes()
    if nodes > 1 and "MASTER_ADDR" not in env:
        raise ValueError(f"NNODES={nodes} needs MASTER_ADDR, the name of one of these machines, the same on all")
    if not visible_gpus(number):
        cores = launch.num_cores()
        print(f"no GPU here; {number} processes on the CPU ({cores} cores), joined by gloo", file=sys.stderr)
        env.setdefault("OMP_NUM_THREADS", str(max(1, cores // number)))
    options = dict(nnodes=nodes, nproc_per_node=number, max_restarts=env.get("MAX_RESTARTS", 0))
    if nodes > 1:
        host, port = env["MASTER_ADDR"], int(env.get("PORT", 29500))
        options |= dict(rdzv_backend="c10d", rdzv_endpoint=f"{host}:{port}", local_addr=_address_towards(host, port))
        if "NODE_RANK" in env:
            conf = f"is_host={int(env['NODE_RANK'] == '0')},{env.get('PET_RDZV_CONF', '')}"
            options["rdzv_conf"] = conf.rstrip(",")
        # A store that the agents keep over restarts has the addresses of dead processes, and no place for a new agent
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            options |= dict(master_addr="127.0.0.1", master_port=env.get("PORT", free.getsockname()[1]))
    torchrun = [f"--{name}={value}" for name, value in options.items()]
    return stop.run_torchrun([*torchrun, *words, "--launcher", "pytorch"])
