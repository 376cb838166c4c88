"""The launcher between a terminal, or a scheduler, and torchrun: real processes, without a training."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time
from mst_transfer.runs import signals
say, mode = sys.argv[1:]
again = os.environ["TORCHELASTIC_RESTART_COUNT"]
if mode == "fail" or (mode == "fail once" and again == "0"):
    signals.note_begun()
    sys.exit(7)
if mode != "wait":
    open(say, "w").write(f"{again} {signals.goes_on()}")
    sys.exit(0)
with signals.listening():
    print("begun", flush=True)
    while not signals.wish():
        time.sleep(0.02)
sys.exit(signals.exit_status(signals.status_of(signals.wish())))
"""


def launch(root: Path, tmp_path: Path, mode: str, *options: str) -> subprocess.Popen:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, str(root / "tools" / "_torchrun.py"), "--nproc_per_node", "1", "--standalone", *options]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(script), str(tmp_path / "said"), mode],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_wish_reaches_the_processes_and_their_status_comes_back(
    number: int, status: int, root: Path, tmp_path: Path
) -> None:
    process = launch(root, tmp_path, "wait")
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == status, said
    assert f"{signal.Signals(number).name}: all processes finish their step" in said
    assert not list((tmp_path / "temporary").glob("mst_launch_*"))


def test_a_failed_process_is_started_again_and_knows_it(root: Path, tmp_path: Path) -> None:
    process = launch(root, tmp_path, "fail once", "--max-restarts", "1")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert (tmp_path / "said").read_text() == "1 True"


def test_failures_are_no_success(root: Path, tmp_path: Path) -> None:
    process = launch(root, tmp_path, "fail")
    process.communicate(timeout=300)
    assert process.returncode == 1


EXCHANGE = """
import os, sys, time
import torch
import torch.distributed as dist
from mst_transfer.runs import launch
launch.init_distributed("pytorch")
value = torch.tensor(float(os.environ["RANK"]))
dist.all_reduce(value)
if os.environ["TORCHELASTIC_RESTART_COUNT"] in ("0", "1"):
    os.kill(os.getpid(), 9) if dist.get_rank() == 1 else time.sleep(60)
open(f"{sys.argv[1]}_{dist.get_rank()}", "w").write(str(value.item()))
launch.shutdown_distributed()
"""


@pytest.mark.slow
def test_processes_that_are_started_again_find_each_other(root: Path, tmp_path: Path) -> None:
    """torchrun's store still has the addresses of those that have died."""
    script = tmp_path / "exchange.py"
    script.write_text(EXCHANGE)
    port = free_port()
    words = ["--nnodes", "1", "--node_rank", "0", "--nproc_per_node", "2", "--max-restarts", "2"]
    words += ["--master_addr", "127.0.0.1", "--master_port", str(port), str(script), str(tmp_path / "sum")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(root / "tools" / "_torchrun.py"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "failed to connect" not in done.stderr
    assert [(tmp_path / f"sum_{rank}").read_text() for rank in range(2)] == ["1.0", "1.0"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
