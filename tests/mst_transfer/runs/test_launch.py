"""Joining a process group: what is refused, what Slurm's variables become, two processes on the CPU."""

import os
import subprocess
import sys
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


@pytest.mark.parametrize(("nodes", "host"), [("alone", "alone"), ("one,two", "one"), ("node[3-4,7]", "node3")])
def test_slurm_variables_become_torchruns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: str, host: str
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\nprintf 'node3\\nnode4\\nnode7\\n'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    values = dict(PROCID="5", NTASKS="16", LOCALID="1", NODELIST=nodes, JOB_ID="123456", NTASKS_PER_NODE="4")
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    launch._take_slurm_environment()
    assert [os.environ[name] for name in VARIABLES] == ["5", "1", "16", "4", host, str(20000 + 123456 % 20000)]


TWO_PROCESSES = """
import sys, torch
from mst_transfer.runs import launch
launch.init_distributed("pytorch")
from mmengine.registry import MODEL_WRAPPERS
cfg = launch.model_wrapper_cfg()
torch.manual_seed(launch.rank())  # DDP makes the parameters of rank 0 everybody's
model = MODEL_WRAPPERS.build(cfg, default_args=dict(module=torch.nn.Linear(2, 1), device_ids=[0]))
x = torch.arange(8.0).view(4, 2)[2 * launch.rank():][:2]
model(x).square().mean().backward()
grad = [p.grad for p in model.parameters()]
torch.manual_seed(0)
whole = torch.nn.Linear(2, 1)
whole(torch.arange(8.0).view(4, 2)).square().mean().backward()
for one, other in zip(grad, whole.parameters()):
    torch.testing.assert_close(one, other.grad)
assert launch.world_size() == 2
del model, grad
launch.shutdown_distributed()
print("equal")
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on the CPU; there is a GPU here")
def test_two_processes_on_the_cpu_give_the_gradient_of_one(tmp_path: Path, root: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 2
