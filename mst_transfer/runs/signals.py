"""Signals that ask a run to stop: it finishes its step, saves, and leaves with a status that a scheduler understands.

SIGINT (Ctrl-C), SIGTERM and SIGUSR1 are wishes, noted by the process that gets them; each step brings the wishes of
all processes together, and all stop after the same one. A second signal ends the process at once.

Under ``tools/_torchrun.py`` a wish also arrives as a file: torchrun would pass a signal on, but end its processes 30
seconds later, and drop their exit status.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

STATUS_GO_ON = 75  # EX_TEMPFAIL of sysexits.h: saved; run the command again to go on
STATUS_INTERRUPTED = 130  # of programs that Ctrl-C has ended: saved too, and no script should start it again
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
FOLDER = "MST_LAUNCH_DIR"  # environment: where the launcher and its processes leave notes for each other
STOP_FILE, STATUS_FILE, BEGUN_FILE = "stop", "status", "begun"
ECHO_SECONDS = 5.0  # Ctrl-C reaches a process of torchrun twice: from the terminal, and from torchrun

_NONE, _INTERRUPT, _GO_ON = 0, 1, 2  # wishes; the largest of all processes' counts
LARGEST = 2
_wish = _NONE
_agreed = _NONE
_first: tuple[int, float] | None = None
_begun = False


class StoppedBySignal(Exception):  # noqa: N818 - no error
    """A run has stopped because it was told to, in every process.

    Args:
        message: what was saved, and how to go on.
        status: exit status of the program.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def listening() -> Iterator[None]:
    """Notes signals instead of dying by them; without effect outside the main thread."""
    global _wish, _agreed, _first, _begun
    _wish = _agreed = _NONE
    _first, _begun = None, False
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
    global _wish, _first
    name = signal.Signals(number).name
    if _first is not None or _stop_file_exists():
        if _first is not None and _is_echo(number, *_first):
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    _first = number, time.monotonic()
    _wish = _INTERRUPT if number == signal.SIGINT else _GO_ON
    os.write(2, f"{name}: the step is finished and a checkpoint saved; the same again stops at once\n".encode())


def _is_echo(number: int, first: int, since: float) -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and number == first and time.monotonic() - since < ECHO_SECONDS


def _stop_file() -> Path | None:
    folder = os.environ.get(FOLDER)
    return Path(folder) / STOP_FILE if folder else None


def _stop_file_exists() -> bool:
    path = _stop_file()
    return path is not None and os.path.exists(path)


def wish() -> int:
    """This process's wish: 0 to go on; larger ones win over smaller ones. Give the largest of all to :func:`agree`."""
    path = _stop_file()
    if _wish == _NONE and path is not None and os.path.exists(path):
        return _INTERRUPT if path.read_text().strip() == "SIGINT" else _GO_ON
    return _wish


def agree(largest: int) -> None:
    """All processes wish, or have heard, the same."""
    global _agreed
    _agreed = max(_agreed, int(largest))


def agreed() -> int:
    """What :func:`agree` was told since :func:`listening`."""
    return _agreed


def agree_now(device: Any = "cpu") -> int:
    """Brings the wishes of all processes together at once; every process must call it.

    Args:
        device: that the group's backend can reduce on.
    """
    import torch
    import torch.distributed as dist

    largest = wish()
    if dist.is_available() and dist.is_initialized():
        value = torch.tensor(float(largest), device=device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        largest = int(value.item())
    agree(largest)
    return _agreed


def status_of(largest: int) -> int:
    """The exit status that goes with what was agreed on."""
    return STATUS_INTERRUPTED if largest == _INTERRUPT else STATUS_GO_ON


def note_begun() -> None:
    """Training begins: from now on its work dir holds nothing but this run's checkpoints."""
    global _begun
    _begun = True
    folder = os.environ.get(FOLDER)
    if folder is not None:
        (Path(folder) / BEGUN_FILE).touch()


def has_begun() -> bool:
    """Whether the first step was near since :func:`listening`: errors before are refusals of what the user gave."""
    return _begun


def goes_on() -> bool:
    """Whether torchrun, after a process has failed, or Slurm has started this program again: then it goes on with the
    newest checkpoint, whatever its command line says about the beginning."""
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return True
    folder = os.environ.get(FOLDER)
    begun = folder is None or (Path(folder) / BEGUN_FILE).exists()
    return begun and bool(int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0))


def exit_status(status: int) -> int:
    """What a program that has stopped well returns.

    Under our launcher the status goes to a file and the program ends as a success: torchrun would take anything else
    for a failure and end the other processes.
    """
    folder = os.environ.get(FOLDER)
    if folder is None or status not in (STATUS_GO_ON, STATUS_INTERRUPTED):
        return status
    (Path(folder) / STATUS_FILE).write_text(str(status))
    return 0
