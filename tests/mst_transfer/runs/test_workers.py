"""Workers that die, hang or fail: the message says how, and what to do."""

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
import types

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mst_transfer.runs import workers
from mst_transfer.runs.workers import dismiss, explain, watch


class Pictures(Dataset):
    """Eight samples; one of them does harm."""

    def __init__(self, harm: str = "") -> None:
        self.harm = harm

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 5:
            if self.harm == "exception":
                raise ValueError("photos/5.jpg: no such colour")
            if self.harm == "hang":
                time.sleep(600)
            if self.harm == "segfault":
                ctypes.string_at(0)
            if self.harm == "exit":
                os._exit(3)
            if self.harm == "no shared memory":
                raise RuntimeError("unable to allocate shared memory(shm) for file </torch_7_1>: No space left (28)")
            if self.harm.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, self.harm))
                time.sleep(5)
        return torch.tensor(index)


def fault(harm: str, timeout: float = 0) -> str:
    """What is said of a fault; the seconds of waiting count once both workers have delivered their first batch."""
    batches = iter(watch(DataLoader(Pictures(harm), num_workers=2, batch_size=2)))
    with pytest.raises(Exception) as caught:
        for number, _ in enumerate(batches):
            time.sleep(0.01)
            if timeout and number == 1:
                batches._timeout = timeout
        time.sleep(1)
    found = explain(caught.value)
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises the error again, wherever it is
    batches._shutdown_workers()  # left to the garbage collector, torch waits five seconds for each worker
    signal.signal(signal.SIGCHLD, handler)
    assert found is not None, caught.value
    return str(found)


DEATHS = {"SIGKILL": "was killed (SIGKILL)", "segfault": "segmentation fault", "SIGBUS": "--shm-size"}
FAILURES = {"no shared memory": "--shm-size", "exit": "num_workers=0", "exception": "ValueError: photos/5.jpg: no such"}


@pytest.mark.parametrize("harm", [*DEATHS, *FAILURES])
def test_a_worker_that_dies_or_fails_is_explained(harm: str) -> None:
    """torch may see that a worker is dead before it hears of the signal."""
    message = fault(harm)
    assert (DEATHS | FAILURES)[harm] in message or (harm in DEATHS and "ended without saying" in message), message
    assert "Next step: " in message


@pytest.mark.parametrize(
    "said, words",
    [
        ("is killed by signal: Killed. ", "memory runs out"),
        ("is killed by signal: Segmentation fault. ", "crashed (segmentation fault)"),
        ("is killed by signal: Bus error. It is possible that dataloader's workers are out of", "--shm-size"),
        ("exited unexpectedly with exit code 3. ", "ended without saying why"),
    ],
)
def test_what_torch_says_is_put_into_words(said: str, words: str) -> None:
    message = str(explain(RuntimeError(f"DataLoader worker (pid 123) {said}")))
    assert words in message and "(process 123)" in message


def test_a_connection_that_a_dying_worker_lost() -> None:
    """Other connections are lost, and other errors raised, without any worker's fault."""

    def _try_get_data() -> None:  # as torch's loader, waiting for a batch
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionError) as caught:
        _try_get_data()
    assert "ended without saying why" in str(explain(caught.value))
    for other in (ConnectionResetError(104, "Connection reset"), ValueError("shapes"), RuntimeError("timed out")):
        assert explain(other) is None


def test_a_death_that_torch_hears_of_while_another_error_is_read(monkeypatch) -> None:
    def heard(error: BaseException) -> bool:
        raise RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. ")

    monkeypatch.setattr(workers, "_is_of_a_batch", heard)
    assert "was killed (SIGKILL)" in str(explain(ConnectionResetError(104, "Connection reset by peer")))


def test_a_worker_that_hangs_is_explained_and_ended() -> None:
    began = time.monotonic()
    assert "has not delivered its batch in time" in fault("hang", timeout=1)
    assert time.monotonic() - began < 300 and not torch.multiprocessing.active_children()


def test_the_wait_is_bounded_unless_the_config_says_how_long() -> None:
    assert watch(DataLoader(Pictures(), num_workers=1)).timeout == workers.DEFAULT_TIMEOUT
    assert watch(DataLoader(Pictures(), num_workers=1, timeout=7)).timeout == 7
    alone = DataLoader(Pictures())
    assert watch(alone).timeout == 0 and alone.worker_init_fn is None


def test_workers_outlive_signals_to_all_but_not_their_parents() -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the workers too; their parent still needs them for its last step."""
    batches = iter(watch(DataLoader(Pictures(), num_workers=1, prefetch_factor=1)))
    next(batches)
    (worker,) = batches._workers
    send = f"import os\nfor number in (2, 10, 15): os.kill({worker.pid}, number)"
    subprocess.run([sys.executable, "-c", send], check=True)
    assert [int(batch) for batch in itertools.islice(batches, 3)] == [1, 2, 3]
    worker.terminate()
    worker.join(300)
    assert worker.exitcode == 0


def test_dismissed_workers_are_gone_and_come_again() -> None:
    loader = watch(DataLoader(list(range(64)), batch_size=1, num_workers=2, persistent_workers=True))
    for _ in range(2):
        next(iter(loader))  # the others are still being loaded
        processes = loader._iterator._workers
        dismiss(loader)
        assert not any(process.is_alive() for process in processes)
        assert all(process.exitcode == 0 for process in processes)  # told to end, not killed after a wait
    dismiss(loader), dismiss(DataLoader([1])), dismiss(None)  # nothing to do


def test_too_little_shared_memory_is_said_before_it_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=3 * 2**30))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    loader = types.SimpleNamespace(num_workers=8, prefetch_factor=4, batch_size=32)  # 2,048 samples ahead
    text = workers.lack_of_shared_memory(loader, 2**21, folder="/")
    assert "load 4.0 GiB ahead, and / has 3.0 GiB free" in text and "--shm-size" in text
    assert not workers.lack_of_shared_memory(loader, 2**20, folder="/")
    loader.num_workers, loader.prefetch_factor = 0, None
    assert not workers.lack_of_shared_memory(loader, 2**30, folder="/")
