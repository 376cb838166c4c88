"""Data-loading workers: they finish their work when a run is told to stop, and their deaths are explained."""

import multiprocessing
import os
import re
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from mst_transfer.files.image_files import UnreadableImageError

_RAISED = re.compile(r"^mst_transfer(?:\.\w+)+Error: ", re.MULTILINE)

DEFAULT_TIMEOUT = 600.0  # seconds to wait for a batch; shorter than what the other processes wait for this one

_LESS = "fewer train_dataloader.num_workers or smaller images"
_ALONE = "train_dataloader.num_workers=0 shows where"
_FAULTS: tuple[tuple[str, str, str], ...] = (  # what torch says, what happened, what to do
    (
        r"Bus error|out of shared memory|shared memory ?\(shm\)|open shared memory|/torch_\d+",
        "found no more shared memory (/dev/shm is full)",
        "give the container more (docker run --shm-size=16g, or --ipc=host; in Kubernetes an emptyDir of medium Memory "
        f"at /dev/shm), or {_LESS}",
    ),
    (
        r"signal: Killed",
        "was killed (SIGKILL), as the system does when memory runs out",
        f"{_LESS}, or more memory for the job; `dmesg` and the scheduler's accounting tell which it was",
    ),
    (
        r"Segmentation fault",
        "crashed (segmentation fault)",
        f"look for a damaged file, which decoders crash on: {_ALONE}, with PYTHONFAULTHANDLER=1 in the environment",
    ),
    (
        r"timed out after",
        "has not delivered its batch in time",
        "look at the disk that the images are on; if loading is slow for good reasons, raise train_dataloader.timeout "
        f"(seconds); {_ALONE} it hangs",
    ),
    (
        r"exited unexpectedly|is killed by signal",
        "ended without saying why",
        f"{_ALONE}; if it does not fail there, memory ran out: {_LESS}",
    ),
    (r"in DataLoader worker process \d+", "failed", "mend what the error below names"),
)


class DataLoadingError(RuntimeError):
    """A data-loading worker died, hung or failed; the message says what to do."""


class WorkerStart:
    """Prepares a worker for signals, as its loader's ``worker_init_fn``, after ``inner``, the loader's own."""

    def __init__(self, inner: Callable[[int], Any] | None) -> None:
        self.inner = inner

    def __call__(self, worker_id: int) -> None:
        if self.inner is not None:
            self.inner(worker_id)
        _leave_signals_to_parent()


def _leave_signals_to_parent() -> None:
    """What tells a whole job to stop reaches workers too, while their parent still needs batches. The parent's own
    SIGTERM ends them."""
    for number in (signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # tells who has sent it; macOS has none, and torch's handler stays
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by_parent, args=(os.getppid(),), daemon=True).start()


def _end_by_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:  # type: ignore[attr-defined,unused-ignore]
        pass
    os._exit(0)


def watch(loader: Any) -> Any:
    """Makes the workers of a new torch ``DataLoader`` heed their parent alone, and it not wait for ever; returns it."""
    if loader.num_workers and not isinstance(loader.worker_init_fn, WorkerStart):
        loader.worker_init_fn = WorkerStart(loader.worker_init_fn)
        loader.timeout = loader.timeout or DEFAULT_TIMEOUT
    return loader


def dismiss(loader: Any) -> None:
    """Ends the persistent workers of a torch ``DataLoader``, if there are any.

    The garbage collector would close their queues before they are told to end, and wait five seconds for each.
    """
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None:
        loader._iterator = None
        iterator._shutdown_workers()


def explain(error: BaseException) -> DataLoadingError | None:
    """Says what a loader's fault means, and what to do. Workers that hang are killed, so that the program can end.

    Args:
        error: as it was raised, by the loader or, for workers that have died, anywhere.

    Returns:
        The error to show; None if this is no fault of a worker, or one that names its image itself.
    """
    try:
        return _explained(error)
    except RuntimeError as death:  # a signal may tell torch of a worker's death while this reads what came first
        return _explained(death)


def _explained(error: BaseException) -> DataLoadingError | None:
    if isinstance(error, UnreadableImageError):
        return None
    text = "\n".join(_chain(error))
    if isinstance(error, ConnectionError | EOFError) and _is_of_a_batch(error):
        text += "DataLoader worker exited unexpectedly"
    found = next((fault for fault in _FAULTS if re.search(fault[0], text)), None)
    if found is None or "DataLoader" not in text:
        return None
    if "timed out" in text:
        _kill_workers()
    pids = re.findall(r"pids?(?:\(s\))? (\d+(?:, \d+)*)", text)
    who = f" (process {pids[0]})" if pids else ""
    below = f"\n{error}" if found is _FAULTS[-1] else ""
    return DataLoadingError(f"a data-loading worker{who} {found[1]}. Next step: {found[2]}{below}")


def _chain(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        error = error.__cause__ or error.__context__


def _is_of_a_batch(error: BaseException) -> bool:
    """Whether a connection was lost while a worker handed a batch over: others are lost without a worker's fault."""
    return any(frame.name == "_try_get_data" for frame in traceback.extract_tb(error.__traceback__))


def _kill_workers() -> None:
    """Ends them for good: one that hangs in a library does not heed its parent."""
    for child in multiprocessing.active_children():
        with suppress(RuntimeError):  # torch's, of the worker's death
            child.kill()
            child.join(10)


def plain_message(error: BaseException) -> str:
    """The message of an error, without the traceback that torch puts around what a worker raised."""
    text = str(error)
    starts = [match.end() for match in _RAISED.finditer(text)]
    return text[starts[-1] :].strip() if starts else text


def lack_of_shared_memory(loader: Any, sample_bytes: int, folder: str = "/dev/shm") -> str:
    """A warning if what the workers of this node load ahead may not fit into shared memory; else empty.

    Args:
        loader: torch's; each process of the node has one like it.
        sample_bytes: of the tensors of a sample.
    """
    batches = loader.num_workers * (loader.prefetch_factor or 0) * int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    needed = batches * (loader.batch_size or 1) * sample_bytes
    if not needed or not os.path.isdir(folder) or (free := shutil.disk_usage(folder).free) >= needed:
        return ""
    return (
        f"the workers of this node load {needed / 2**30:.1f} GiB ahead, and {folder} has {free / 2**30:.1f} GiB free: "
        "they may be killed. Next step: start the container with a larger --shm-size, or lower "
        "train_dataloader.prefetch_factor"
    )
