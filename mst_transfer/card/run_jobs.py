"""Runs a card's jobs: one process each, side by side on cores or GPUs, or handed to a scheduler."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from mst_transfer.card.head_job import head_outcomes
from mst_transfer.card.outcomes import read_result, save_outcome, write_result
from mst_transfer.card.plan import Job, Plan, job_folder, read_plan
from mst_transfer.card.probe_job import probe_outcomes
from mst_transfer.card.task_data import open_task
from mst_transfer.engine.results import hardware, package_versions
from mst_transfer.runs.launch import num_cores
from mst_transfer.runs.stop import end_with_parent
from mst_transfer.runs.work_dir import locked

LOG = "log.txt"


def run_job(folder: Path, name: str, begun: float | None = None) -> None:
    """Runs one job of a plan in this process; one that is done is left alone.

    ``begun``: ``time.monotonic()`` when the process began; None: now.

    Raises:
        ValueError: the plan has no such job, another process runs it, or what the job's own parts refuse.
    """
    plan = read_plan(folder)
    job = next((job for job in plan.jobs if job.id == name), None)
    if job is None:
        raise ValueError(f"--job {name}: {folder} has no such job; its jobs: {', '.join(job.id for job in plan.jobs)}")
    out, start = job_folder(folder, job), time.monotonic() if begun is None else begun
    if read_result(out):
        return
    with locked(out):
        data = open_task(plan.task(job.task))
        if data.digest() != plan.digests[job.task]:
            raise ValueError(
                f"the files of {job.task} are not those of the plan. Next step: mst evaluate with a new --out"
            )
        outcomes = head_outcomes if job.recipe else probe_outcomes
        for key, measure in outcomes(plan, job, data, folder):
            save_outcome(out, key, measure)
        environment = {"hardware": hardware(), **package_versions()}
        write_result(out, minutes=round((time.monotonic() - start) / 60, 3), environment=environment)


def command_of(folder: Path, job: Job) -> list[str]:
    """The command line of a job."""
    return [sys.executable, "-m", "mst_transfer.cli.main", "evaluate", "--out", str(folder), "--job", job.id]


def unfinished(folder: Path, plan: Plan) -> list[Job]:
    """The jobs that have left no result."""
    return [job for job in plan.jobs if not read_result(job_folder(folder, job))]


def hand_over(folder: Path, plan: Plan, partition: str, out: TextIO | None = None) -> None:
    """Gives what is not done yet to a partition of Slurm; without one prints one command a line, for any scheduler.

    Raises:
        ValueError: there is no Slurm here, or it refused the jobs, and has said why.
    """
    jobs, variable = unfinished(folder, plan), os.environ.get("MST_DATA_ROOT")
    before = f"MST_DATA_ROOT={shlex.quote(os.path.abspath(variable))} " if variable else ""
    commands = [before + shlex.join(command_of(folder.absolute(), job)) for job in jobs]
    if not partition:
        print("".join(f"{command}\n" for command in commands), end="", file=out)
    elif jobs:
        submit(folder.absolute(), commands, partition)
        print("once they have ended, the same command without --slurm writes the card")


def submit(folder: Path, commands: Sequence[str], partition: str) -> None:
    """Gives ``sbatch`` a job array, a task a command; the script is Slurm's own copy. Errors as of ``hand_over``."""
    tasks = "".join(f"{number}) {command} ;;\n" for number, command in enumerate(commands, 1))
    words = [f"--array=1-{len(commands)}", f"--partition={partition}", "--gpus-per-task=1", "--ntasks=1"]
    words += [f"--job-name={folder.name}", f"--output={folder}/slurm-%A_%a.txt"]
    script = f'#!/bin/sh\ncase "$SLURM_ARRAY_TASK_ID" in\n{tasks}esac\n'
    try:
        refused = subprocess.run(["sbatch", *words], input=script, text=True).returncode
    except FileNotFoundError:
        raise ValueError("--slurm: no 'sbatch' here, this is not a Slurm machine. Next step: --print-jobs") from None
    if refused:
        raise ValueError(
            f"--slurm {partition}: sbatch took no job (status {refused}). Next step: mend what it says above"
        )


def run_all(folder: Path, plan: Plan, costs: Mapping[str, float], num_jobs: int, num_gpus: int = 0) -> list[str]:
    """Runs what is not done yet, and says how far it is.

    Args:
        folder, plan: of the card.
        costs: seconds that each job may take, by id: of these the time left is made.
        num_jobs, num_gpus: at once on CPU cores; or one job a GPU.

    Returns:
        Ids of the jobs that failed, whose logs say why; the others are done.
    """
    waiting, failed = unfinished(folder, plan), []
    running: dict[str, tuple[subprocess.Popen[bytes], int, float]] = {}
    total = sum(costs[job.id] for job in waiting)
    slots = list(range(num_gpus or num_jobs))
    begun = shown = time.monotonic()
    spent = 0.0
    try:
        while waiting or running:
            while waiting and slots:
                slot, job = slots.pop(0), waiting.pop(0)
                running[job.id] = (_start(folder, job, slot, num_jobs, num_gpus), slot, time.monotonic())
            time.sleep(0.2)
            ended = [name for name, (process, _, _) in running.items() if process.poll() is not None]
            said = [] if ended or time.monotonic() - shown < 60 else [f"running: {', '.join(running)};"]
            for name in ended:
                process, slot, at = running.pop(name)
                slots.append(slot)
                spent += costs[name]
                failed += [name] if process.returncode else []
                status = f"FAILED, see {folder / 'jobs' / name / LOG}" if process.returncode else "done"
                said.append(f"{name}: {status} in {_minutes(time.monotonic() - at)},")
            for words in said:
                shown = time.monotonic()
                pace = (shown - begun) / spent if spent else 1.0  # longer or shorter than planned
                print(words, f"about {_minutes(pace * (total - spent))} left", flush=True)
    finally:
        for process, _, _ in running.values():
            process.terminate()
        for process, _, _ in running.values():
            process.wait()
    return failed


def _start(folder: Path, job: Job, slot: int, num_jobs: int, num_gpus: int) -> subprocess.Popen[bytes]:
    out = job_folder(folder, job)
    out.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if num_gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[slot] if visible[0] else str(slot)
    else:
        environment["OMP_NUM_THREADS"] = str(max(1, num_cores() // num_jobs))
    with open(out / LOG, "ab") as log:
        end = end_with_parent if sys.platform == "linux" else None
        words = command_of(folder, job)
        return subprocess.Popen(words, stdout=log, stderr=log, env=environment, preexec_fn=end)  # noqa: PLW1509 - alone


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
