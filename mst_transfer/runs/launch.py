"""Process groups: one process, many GPUs, many CPU processes; started by torchrun or by Slurm.

mmengine's own start-up calls ``torch.cuda.set_device`` and wraps the model with a device id, which fails without a GPU.
A Runner skips it if the group stands already: a program calls ``init_distributed`` first and gives the Runner
``launcher`` and, where it isn't None, ``model_wrapper_cfg``.
"""

import datetime
import gc
import os
import subprocess
from typing import Any

LAUNCHERS = ("none", "pytorch", "slurm")
TIMEOUT = datetime.timedelta(minutes=30)  # of a collective operation's wait for the other processes


def init_distributed(launcher: str) -> None:
    """Joins the process group that the launcher describes: NCCL where there are GPUs, gloo where there are none.

    Does nothing if the group stands already.

    Args:
        launcher: ``none`` (this process alone), ``pytorch`` (torchrun) or ``slurm`` (srun, one task a process).

    Raises:
        ValueError: Unknown launcher, or this node has fewer GPUs than processes.
        RuntimeError: The launcher's environment variables are missing.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher={launcher!r}: it must be one of {LAUNCHERS}")
    import torch
    import torch.distributed as dist

    if launcher == "none" or dist.is_initialized():
        return
    if launcher == "slurm":
        _take_slurm_environment()
    _check_environment(launcher)
    backend, options = "gloo", dict[str, Any](timeout=TIMEOUT)
    if torch.cuda.is_available():
        backend = "nccl"
        local_rank, num_devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= num_devices:
            raise ValueError(
                f"process {local_rank} of this node has no GPU of its own: {num_devices} visible. "
                f"Next step: start at most {num_devices} processes a node, or widen CUDA_VISIBLE_DEVICES"
            )
        torch.cuda.set_device(local_rank)
        options["device_id"] = torch.device("cuda", local_rank)  # NCCL need not guess
    store = _store_of_attempt()
    if store is None:
        dist.init_process_group(backend, **options)
    else:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, **options)


def _store_of_attempt() -> Any:
    """The agreed-on place of a group that torchrun has started again; None for a first start.

    torchrun's static rendezvous keeps one store over restarts: under the same names the new processes would find the
    addresses of those that have died, and fail to connect now and then.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT") or "0"
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import PrefixStore, TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return PrefixStore(f"attempt_{attempt}", TCPStore(address, port, is_master=False, timeout=TIMEOUT))


def _check_environment(launcher: str) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"launcher={launcher!r} needs the environment variables {', '.join(missing)}, which are not set. "
            "Next step: start with torchrun (as tools/dist_train.sh does), or use --launcher none"
        )


def _take_slurm_environment() -> None:
    """Sets torchrun's variables from those that srun sets for each task."""
    missing = [name for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST") if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"launcher='slurm' needs {', '.join(missing)}, which srun sets. Next step: tools/slurm_train.sh"
        )
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
    os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
    os.environ.setdefault("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", "1"))
    # A port that all tasks of a job agree on and that jobs on one node rarely share
    os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ.get("SLURM_JOB_ID") or 9500) % 20000))
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_slurm_host(os.environ["SLURM_NODELIST"])


def _first_slurm_host(node_list: str) -> str:
    if "[" not in node_list:
        return node_list.split(",")[0]
    command = ["scontrol", "show", "hostnames", node_list]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_wrapper_cfg(find_unused_parameters: bool = False) -> dict[str, Any] | None:
    """The ``model_wrapper_cfg`` of a Runner's config for CPU processes; None where mmengine's default is right."""
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available() or not (dist.is_available() and dist.is_initialized()):
        return None
    from mst_transfer.devices.cpu_processes import CPUDistributedDataParallel

    return dict(
        type=CPUDistributedDataParallel.__name__,
        broadcast_buffers=False,
        find_unused_parameters=find_unused_parameters,
    )


def rank() -> int:
    """Number of this process, also before it joined the group."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def world_size() -> int:
    """Number of processes in the group; 1 without one."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shutdown_distributed() -> None:
    """Leaves the process group, together with the other processes. The last call of a program that joined one.

    A process that just ends while its neighbours, or gloo's own threads, still hold parts of the group is now and then
    aborted ("terminate called without an active exception"), and torchrun calls the run failed. Let go of the model
    first: what still refers to the group keeps its threads alive.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        gc.collect()  # a Runner and its hooks refer to each other
        dist.barrier()
        dist.destroy_process_group()
