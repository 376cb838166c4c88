"""How a training program ends: done, stopped by a signal, refused, or failed in one process, which ends them all."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from mst_transfer.runs import launch, run_lock, signals
from mst_transfer.runs.worker_watch import explain


def end_group(status: int) -> int:
    """Ends this process without waiting for the others, which may wait for it: their next exchange then fails at once.

    Returns:
        ``status``, where this process is alone.
    """
    if launch.world_size() == 1:
        return status
    logging.shutdown()
    with suppress(OSError, ValueError):
        sys.stdout.flush(), sys.stderr.flush()
    run_lock.release_all()
    os._exit(status)


def train_to_end(program: str, train: Callable[[], object]) -> int:
    """Trains, listening to signals.

    Args:
        program: its name, for messages.
        train: returns when the run is done. An error that the caller knows how to put is the caller's, who gives the
            status to :func:`end_group`.

    Returns:
        Exit status: 0 done; 75 or 130 stopped by a signal; 1 for bad numbers or a fault in loading data.

    Raises:
        Exception: any other error, where this process is alone; in a group its traceback is printed and it ends.
    """
    stop = None
    try:
        with signals.listening():
            train()
        return 0
    except signals.StoppedBySignal as stopped:
        stop = str(stopped), stopped.status
    except FloatingPointError as error:  # in every process alike
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{program}: {error}", file=sys.stderr)
        return end_group(1)
    except Exception as error:
        fault = explain(error)
        if fault is not None:
            print(f"{program}: {fault}", file=sys.stderr)
            return end_group(1)
        raise
    if launch.rank() == 0:
        print(f"{program}: {stop[0]}", file=sys.stderr)
    launch.shutdown_distributed()
    return signals.exit_status(stop[1])


def fail_alone(error: BaseException) -> None:
    """For an error that is nobody's to put into words: in a group this process says it and ends, else it is raised."""
    if launch.world_size() > 1:
        traceback.print_exception(error)
        end_group(1)
    raise error
