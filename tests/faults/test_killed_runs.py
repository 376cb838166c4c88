"""Runs that are killed with SIGKILL and resumed end with the same bits as a run in peace, in all three tasks."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_runs
from same_runs import check_equal

TASKS = ("pretrain", "seg", "det")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("task", TASKS)
def test_killed_at_random_moments(task: str, tmp_path: Path) -> None:
    """Twenty kills and more, a good part of them while a checkpoint is written; weights, optimizer, losses equal."""
    script = Path(__file__).parent / "kill_runs.py"
    command = [sys.executable, str(script), task, str(tmp_path), "20"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "killed.json").read_text())
    kinds = {kind: report["endings"].count(kind) for kind in set(report["endings"])}
    compared = 0
    for number in range(1, report["rounds"] + 1):
        compared += check_equal(tmp_path / "whole", tmp_path / f"killed_{number}")
    times = f"{report['seconds']:.0f} s, {report['cpu_seconds']:.0f} s of CPU"
    print(f"{task}: {kinds}, {compared} rows of logs, {times}")
    assert kinds["killed"] + kinds["killed in writing"] >= 20 and kinds["killed in writing"] >= 5


@pytest.mark.parametrize("task", TASKS)
def test_killed_at_the_command_line(task: str, root: Path, tmp_path: Path) -> None:
    """The same through the scripts of ``tools``, a process of its own for every start."""
    config = tiny_runs.write_config(task, tmp_path)
    script = root / "tools" / ("pretrain.py" if task == "pretrain" else "train.py")
    chance = random.Random(task)

    def start(name: str, options: list[str], resume: bool) -> subprocess.Popen:
        words = tiny_runs.command(task, config, tmp_path / name, options, resume)
        log = open(tmp_path / f"{name}.log", "a")
        command = [sys.executable, str(script), *words]
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)

    assert start("whole", [], resume=False).wait(timeout=300) == 0
    work_dir = tmp_path / "killed"
    for workers in (2, 0, 1):
        process = start("killed", [f"train_dataloader.num_workers={workers}"], resume=True)
        before = set(work_dir.glob("*.pth"))
        while set(work_dir.glob("*.pth")) <= before and process.poll() is None:  # a checkpoint further, then
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.5))
        assert process.poll() is None, (tmp_path / "killed.log").read_text()[-2000:]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start("killed", [], resume=True).wait(timeout=300) == 0
    check_equal(tmp_path / "whole", work_dir)
