"""Ends runs well: signals that ask them to stop, torchrun that passes these on, failures, and exit statuses.

SIGINT (Ctrl-C), SIGTERM and SIGUSR1 are wishes, noted by the process that gets them; each step brings the wishes of
all processes together, and all stop after the same one. A second signal ends the process at once. A wish is the exit
status that it ends in, 0 for none; of several the largest wins.

torchrun itself dies by SIGUSR1, kills its processes 30 seconds after SIGTERM, and returns 1 whatever they return. So
``run_torchrun`` starts it in a session of its own: a signal becomes a file that every process looks for at each
step, and their status comes back through a file too.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from mst_transfer.files.image_files import UnreadableImageError
from mst_transfer.runs import launch, work_dir
from mst_transfer.runs.workers import explain, plain_message

SAVED = 75  # EX_TEMPFAIL of sysexits.h: saved; run the command again to go on
INTERRUPTED = 130  # of programs that Ctrl-C has ended: saved too, and no script should start it again
STATUSES = (SAVED, INTERRUPTED)
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
FOLDER = "MST_LAUNCH_DIR"  # environment: where the launcher and its processes leave notes for each other
STOP_FILE, STATUS_FILE, BEGUN_FILE = "stop", "status", "begun"
ECHO_SECONDS = 5.0  # Ctrl-C reaches a process of torchrun twice: from the terminal, and from torchrun
_PR_SET_PDEATHSIG = 1
Result = TypeVar("Result")


class StoppedBySignal(Exception):  # noqa: N818 - no error
    """A run has stopped because it was told to, in every process: with what was saved, and the exit ``status``."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class _Run:
    """Wishes and progress of the run of this process."""

    wish: int = 0
    agreed: int = 0
    first: tuple[int, float] | None = None  # the first signal, and when it came
    begun: bool = False


_run = _Run()


@contextmanager
def listening() -> Iterator[None]:
    """Notes signals instead of dying by them; without effect outside the main thread."""
    global _run
    _run = _Run()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    if _run.first is not None or _launchers_wish():
        if _run.first is not None and _is_echo(number, *_run.first):
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    name = signal.Signals(number).name
    _run.first, _run.wish = (number, time.monotonic()), _wish_of(name)
    os.write(2, f"{name}: the step is finished and a checkpoint saved; the same again stops at once\n".encode())


def _wish_of(name: str) -> int:
    return INTERRUPTED if name == "SIGINT" else SAVED


def _is_echo(number: int, first: int, since: float) -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and number == first and time.monotonic() - since < ECHO_SECONDS


def _note_of_launch(name: str) -> Path | None:
    """One of the files that the launcher and its processes share; None without our launcher."""
    folder = os.environ.get(FOLDER)
    return Path(folder) / name if folder else None


def _launchers_wish() -> int:
    path = _note_of_launch(STOP_FILE)
    return _wish_of(path.read_text().strip()) if path is not None and os.path.exists(path) else 0


def wish() -> int:
    """Returns this process's wish. Give the largest of all processes' to ``agree``."""
    return _run.wish or _launchers_wish()


def agree(largest: float) -> None:
    """Notes what all processes wish, or have heard."""
    _run.agreed = max(_run.agreed, int(largest))


def agreed() -> int:
    """Returns what ``agree`` was told since ``listening``."""
    return _run.agreed


def agree_now(device: Any = "cpu") -> int:
    """Brings the wishes of all processes together at once, on a device that can reduce; every process must call it."""
    import torch
    import torch.distributed as dist

    value = torch.tensor(float(wish()), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    agree(value.item())
    return _run.agreed


def note_begun() -> None:
    """Notes that training begins: from now on its work dir holds nothing but this run's checkpoints."""
    _run.begun = True
    path = _note_of_launch(BEGUN_FILE)
    if path is not None:
        path.touch()


def is_restarted() -> bool:
    """Tells whether torchrun, after a process has failed, or Slurm has started this program again.

    It then goes on with the newest checkpoint, whatever its command line says about the beginning.
    """
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return True
    begun = _note_of_launch(BEGUN_FILE)
    if begun is not None:  # torchrun counts failures of this machine, not those of others
        return begun.exists()
    return bool(int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0))


def exit_status(status: int) -> int:
    """Returns the status for a program that has stopped well.

    Under our launcher the status goes to a file and the program ends as a success: torchrun would take anything else
    for a failure and end the other processes.
    """
    path = _note_of_launch(STATUS_FILE)
    if path is None or status not in STATUSES:
        return status
    path.write_text(str(status))
    return 0


def end_group(status: int) -> int:
    """Ends this process without waiting for the others, which may wait for it: their next exchange then fails at once.

    Where this process is alone the status is returned.
    """
    if launch.world_size() == 1:
        return status
    logging.shutdown()
    with suppress(OSError, ValueError):
        sys.stdout.flush(), sys.stderr.flush()
    work_dir.release_all()
    os._exit(status)


def run_to_end(
    program: str,
    run: Callable[[], Result],
    refusals: tuple[type[Exception], ...] = (),
    early_refusals: tuple[type[Exception], ...] = (),
    stoppable: bool = False,
) -> tuple[int, Result | None]:
    """Runs a program's work and puts what the user can mend into one message instead of a traceback.

    Args:
        program: its name, for messages.
        run: the work; returns when it is done.
        refusals: errors whose text is for the user, the same in every process: said once on each machine.
        early_refusals: those that are so before the first step only.
        stoppable: whether the work heeds signals: see ``listening``.

    Returns:
        Exit status, and what ``run`` returned, None if it did not come to its end. 0 done; 75 or 130 stopped by a
        signal; 1 refused, bad numbers, or a fault in loading data.

    Raises:
        Exception: any other error, where this process is alone; in a group its traceback is printed and it ends.
    """
    try:
        with listening() if stoppable else nullcontext():
            return 0, run()
    except StoppedBySignal as stopped:
        said, status = str(stopped), stopped.status
    except Exception as error:
        if not _run.begun:
            refusals = (*refusals, *early_refusals)
        fault = explain(error)
        if fault is not None:
            print(f"{program}: {fault}", file=sys.stderr)
        elif isinstance(error, (*refusals, FloatingPointError)):
            of_one_process = isinstance(error, OSError | UnreadableImageError)
            if of_one_process or os.environ.get("LOCAL_RANK", "0") == "0":
                print(f"{program}: {plain_message(error)}", file=sys.stderr)
        elif launch.world_size() == 1:
            raise
        else:
            traceback.print_exception(error)
        return end_group(1), None
    if launch.rank() == 0:
        print(f"{program}: {said}", file=sys.stderr)
    launch.shutdown_distributed()
    return exit_status(status), None


def run_torchrun(words: Sequence[str]) -> int:
    """Runs ``torchrun WORDS`` to its end and passes signals on to its processes.

    Returns:
        What the processes agreed on if they were stopped by a signal; else torchrun's status, 128 + n for signal n.
    """
    folder = Path(tempfile.mkdtemp(prefix="mst_launch_"))
    child: list[subprocess.Popen] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        name, stop_file = signal.Signals(number).name, folder / STOP_FILE
        if stop_file.exists():  # the second: torchrun ends its processes, for which it is the second too
            for process in child:
                process.terminate()
            return
        stop_file.write_text(name)
        os.write(2, f"{name}: all processes finish their step and save; the same again stops at once\n".encode())

    for number in (*SIGNALS, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
        signal.signal(number, pass_on)
    try:
        child.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *words],
                env={**os.environ, FOLDER: str(folder)},
                start_new_session=True,
                preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads yet
            )
        )
        status = child[0].wait()
        noted = folder / STATUS_FILE
        if status == 0 and noted.is_file():
            return int(noted.read_text())
        return status if status >= 0 else 128 - status
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def end_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
