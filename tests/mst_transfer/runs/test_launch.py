"""Joining a process group: what is refused, what Slurm's variables become."""

import os
from pathlib import Path

import pytest
import torch

from mst_transfer.runs import launch

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


def test_one_process_needs_nothing() -> None:
    launch.init_distributed("none")
    assert launch.world_size() == 1 and launch.rank() == 0 and launch.model_wrapper_cfg() is None


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match=r"launcher='mpi'.*'none', 'pytorch', 'slurm'"):
        launch.init_distributed("mpi")
    with pytest.raises(RuntimeError, match=r"RANK, LOCAL_RANK, WORLD_SIZE, .*torchrun"):
        launch.init_distributed("pytorch")
    with pytest.raises(RuntimeError, match=r"SLURM_PROCID.*srun"):
        launch.init_distributed("slurm")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = dict(RANK="1", LOCAL_RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="process 1 of this node has no GPU of its own: 1 visible"):
        launch.init_distributed("pytorch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    calls: list[dict] = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **options: calls.append(options))
    launch.init_distributed("pytorch")
    assert calls == [dict(timeout=launch.TIMEOUT, device_id=torch.device("cuda", 1))]


@pytest.mark.parametrize(("nodes", "host"), [("alone", "alone"), ("one,two", "one"), ("node[3-4,7]", "node3")])
def test_slurm_variables_become_torchruns(monkeypatch, tmp_path: Path, nodes: str, host: str) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\nprintf 'node3\\nnode4\\nnode7\\n'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    values = dict(PROCID="5", NTASKS="16", LOCALID="1", NODELIST=nodes, JOB_ID="123456", NTASKS_PER_NODE="4")
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    launch._take_slurm_environment()
    assert [os.environ[name] for name in VARIABLES] == ["5", "1", "16", "4", host, str(20000 + 123456 % 20000)]
