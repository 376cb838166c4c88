"""Which sample a data-loading worker was at when it died, hung or failed.

Each worker notes what it loads in its line of a small shared file. When the loader reports a fault, :func:`explain`
reads the lines and says which sample it was, and what to do.
"""

import mmap
import multiprocessing
import os
import re
import signal
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_transfer.files.image_files import UnreadableImageError

DEFAULT_TIMEOUT = 600.0  # seconds to wait for a batch; shorter than what the other processes wait for this one
_LINE = struct.Struct("=5q")  # pid, state, epoch, index, seconds since the epoch
_IDLE, _LOADING, _FAILED = range(3)
_WATCHED: "weakref.WeakKeyDictionary[WorkerStart, Any]" = weakref.WeakKeyDictionary()  # start -> data set

_LESS = "fewer train_dataloader.num_workers"
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
        "look at that file: decoders crash on damaged ones; `PYTHONFAULTHANDLER=1` shows the place",
    ),
    (
        r"timed out after",
        "has not delivered its batch in time",
        "look at that file and at the disk that it is on; if loading is slow for good reasons, raise "
        "train_dataloader.timeout (seconds)",
    ),
    (
        r"exited unexpectedly|is killed by signal",
        "ended without saying why",
        "train_dataloader.num_workers=0 shows the error itself",
    ),
    (r"in DataLoader worker process \d+", "failed", "mend what the error below names"),
)


class DataLoadingError(RuntimeError):
    """A data-loading worker died, hung or failed; the message names the sample."""


class WorkerStart:
    """A loader's ``worker_init_fn``: opens this worker's line, notes every sample, and prepares for signals.

    Args:
        inner: what the loader did before.
        path: the shared file.
    """

    def __init__(self, inner: Callable[[int], Any] | None, path: str) -> None:
        self.inner, self.path, self.owner = inner, path, os.getpid()

    def __call__(self, worker_id: int) -> None:
        from torch.utils.data import get_worker_info

        if self.inner is not None:
            self.inner(worker_id)
        _leave_signals_to_parent()
        info = get_worker_info()
        if info is not None and hasattr(type(info.dataset), "__getitem__"):
            _note_samples(info.dataset, _Line(self.path, worker_id))


class _Line:
    def __init__(self, path: str, worker_id: int) -> None:
        self.offset = worker_id * _LINE.size
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.write(_IDLE, -1, -1)

    def write(self, state: int, epoch: int, index: int) -> None:
        _LINE.pack_into(self.map, self.offset, os.getpid(), state, epoch, index, int(time.time()))


def _note_samples(dataset: Any, line: _Line) -> None:
    """From now on, in this worker, the data set notes what it is asked for. A failure stays noted."""
    kind: Any = type(dataset)
    failed = False

    def load(self: Any, key: Any) -> Any:
        nonlocal failed
        epoch, index = key if isinstance(key, tuple) else (-1, key)
        if not failed:
            line.write(_LOADING, int(epoch), int(index))
        try:
            sample = kind.__getitem__(self, key)
        except BaseException:
            if not failed:
                line.write(_FAILED, int(epoch), int(index))
            failed = True
            raise
        if not failed:
            line.write(_IDLE, int(epoch), int(index))
        return sample

    noting = type(kind.__name__, (kind,), {"__getitem__": load, "__module__": kind.__module__})
    with suppress(TypeError):  # a data set whose class is not python's is left as it is
        object.__setattr__(dataset, "__class__", noting)


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
    """Makes a torch ``DataLoader`` note its samples and not wait for ever.

    Args:
        loader: not yet iterated. Without workers nothing changes.

    Returns:
        The same.
    """
    if not loader.num_workers or isinstance(loader.worker_init_fn, WorkerStart):
        return loader
    handle, path = tempfile.mkstemp(prefix="mst_workers_")
    with os.fdopen(handle, "wb") as file:
        file.write(bytes(_LINE.size * loader.num_workers))
    start = WorkerStart(loader.worker_init_fn, path)
    weakref.finalize(start, _remove, path, os.getpid())
    _WATCHED[start] = loader.dataset
    loader.worker_init_fn = start
    loader.timeout = loader.timeout or DEFAULT_TIMEOUT
    return loader


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        Path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Note:
    pid: int
    state: int
    epoch: int
    index: int
    since: int
    dataset: Any

    def sample(self) -> str:
        where = "" if self.epoch < 0 else f" of epoch {self.epoch + 1}"
        path = path_of(self.dataset, self.index)
        return f"sample {self.index}{where}" + ("" if path is None else f", {path}")


def _notes() -> Iterator[_Note]:
    for start, dataset in list(_WATCHED.items()):
        with suppress(OSError):
            content = Path(start.path).read_bytes()
            for values in _LINE.iter_unpack(content):
                if values[0]:
                    pid, state, epoch, index, since = values
                    yield _Note(pid, state, epoch, index, since, dataset)


def path_of(dataset: Any, index: int) -> str | None:
    """The file behind a sample, for data sets that know: ours, and those of mmengine, however they are wrapped."""
    paths = getattr(dataset, "paths", None)
    try:
        if paths is not None:
            return str(paths[index])
        return str(dataset.get_data_info(index)["img_path"])
    except (AttributeError, KeyError, IndexError, TypeError):
        inner = getattr(dataset, "dataset", None)
        return None if inner is None else path_of(inner, index)


def explain(error: BaseException) -> DataLoadingError | None:
    """What a loader's fault means.

    Args:
        error: as it was raised, by the loader or, for workers that have died, anywhere.

    Returns:
        The error to show; None if this is no fault of a worker, or one that names its image itself. Workers that hang
        are killed, so that the program can end.
    """
    if isinstance(error, UnreadableImageError):
        return None
    text = "\n".join(_chain(error))
    if isinstance(error, ConnectionError | EOFError):  # of a worker that died, or of anything else that has connections
        alive = {child.pid for child in multiprocessing.active_children()}
        dead = [note.pid for note in _notes() if note.state == _LOADING and note.pid not in alive]
        text += f"DataLoader worker (pid {dead[0]}) exited unexpectedly" if dead else ""
    found = next((fault for fault in _FAULTS if re.search(fault[0], text)), None)
    if found is None or "DataLoader" not in text:
        return None
    pids = {int(pid) for group in re.findall(r"pids?(?:\(s\))? (\d+(?:, \d+)*)", text) for pid in group.split(", ")}
    notes = list(_notes())
    concerned = [note for note in notes if note.pid in pids]
    if not pids:
        alive = {child.pid for child in multiprocessing.active_children()}
        failed = [note for note in notes if note.state == _FAILED and note.pid in alive]
        loading = [note for note in notes if note.state == _LOADING and note.pid in alive]
        oldest_first = sorted(loading, key=lambda note: note.since)
        concerned = oldest_first if "timed out" in text else failed or oldest_first
    if "timed out" in text:
        _kill(concerned)
    names = "; or ".join(note.sample() for note in concerned[:3]) or "a sample that is not known"
    who = ", ".join(sorted({str(note.pid) for note in concerned[:3]} or map(str, pids)))
    below = f"\n{error}" if found is _FAULTS[-1] else ""
    return DataLoadingError(
        f"a data-loading worker (process {who}) {found[1]}, while it loaded {names}. Next step: {found[2]}{below}"
    )


def _chain(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        error = error.__cause__ or error.__context__


def _kill(notes: list[_Note]) -> None:
    """Ends workers for good, while torch does not raise an error for it."""
    pids = {note.pid for note in notes}
    handler = None
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        if child.pid in pids:
            child.kill()
            child.join(10)
    if handler is not None:
        signal.signal(signal.SIGCHLD, handler)
