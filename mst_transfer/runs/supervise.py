"""torchrun, started so that its processes may finish a step and save when the launcher is told to stop.

torchrun itself dies by SIGUSR1, kills its processes 30 seconds after SIGTERM, and returns 1 whatever they return. So
it runs in a session of its own; a signal to this launcher becomes a file that every process looks for at each step
(:mod:`mst_transfer.runs.signals`), and their status comes back through a file too.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from mst_transfer.runs.signals import FOLDER, SIGNALS, STATUS_FILE, STOP_FILE

_PR_SET_PDEATHSIG = 1


def run(words: Sequence[str]) -> int:
    """Runs ``torchrun WORDS`` to its end.

    Returns:
        What the processes agreed on if they were stopped by a signal; else torchrun's status, 128 + n for signal n.
    """
    folder = Path(tempfile.mkdtemp(prefix="mst_launch_"))
    environment = {**os.environ, FOLDER: str(folder)}
    child: list[subprocess.Popen] = []
    for number in (*SIGNALS, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
        signal.signal(number, _pass_on(folder / STOP_FILE, child))
    try:
        child.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *words],
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads yet
            )
        )
        status = child[0].wait()
        noted = folder / STATUS_FILE
        if status == 0 and noted.is_file():
            return int(noted.read_text())
        return status if status >= 0 else 128 - status
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pass_on(stop_file: Path, child: list[subprocess.Popen]) -> Callable[[int, FrameType | None], Any]:
    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if stop_file.exists():  # the second: torchrun ends its processes, for which it is the second too
            for process in child:
                process.terminate()
            return
        stop_file.write_text(name)
        os.write(2, f"{name}: all processes finish their step and save; the same again stops at once\n".encode())

    return handle


def _end_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> int:
    """Arguments are torchrun's."""
    return run(sys.argv[1:])
