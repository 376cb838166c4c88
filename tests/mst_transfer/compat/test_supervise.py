"""The launcher between a terminal, or a scheduler, and torchrun: real processes, without a training."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time
from mst_transfer.compat import signals
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
