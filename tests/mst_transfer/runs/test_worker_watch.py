"""Workers that die, hang or fail: the message names the sample, and says what to do."""

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mst_transfer.runs.worker_watch import explain, watch
from torch.utils.data import DataLoader, Dataset, Subset

from mst_transfer.runs import worker_watch

BAD = 5


class Pictures(Dataset):
    """Eight samples with paths; one of them does harm."""

    def __init__(self, harm: str, flag: Path | None = None) -> None:
        self.harm, self.flag = harm, flag
        self.paths = [f"photos/{index}.jpg" for index in range(8)]

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key):
        _, index = key if isinstance(key, tuple) else (0, key)
        if index == BAD:
            if self.harm == "exception":
                raise ValueError("no such colour")
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


def fault(dataset: Dataset, timeout: float = 0, **options) -> str:
    """What is said of a fault; the seconds of waiting count once both workers have delivered their first batch."""
    batches = iter(watch(DataLoader(dataset, num_workers=2, batch_size=2, **options)))
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


@pytest.mark.parametrize(
    "harm, words",
    [
        ("SIGKILL", ["was killed (SIGKILL)", "memory", "num_workers"]),
        ("segfault", ["segmentation fault"]),
        ("SIGBUS", ["shared memory", "--shm-size"]),
        ("no shared memory", ["shared memory", "--shm-size"]),
        ("exit", ["ended without saying why", "num_workers=0"]),
        ("exception", ["failed", "ValueError: no such colour"]),
    ],
)
def test_the_sample_is_named(harm: str, words: list[str]) -> None:
    message = fault(Pictures(harm), sampler=[(2, index) for index in range(8)])
    if (
        harm.startswith("SIG") or harm == "segfault"
    ):  # torch may see that the worker is gone before it hears of the signal
        words = [] if "ended without saying why" in message else words
    for word in [*words, f"sample {BAD} of epoch 3, photos/5.jpg", "Next step: "]:
        assert word in message, message


@pytest.mark.parametrize(
    "said, words",
    [
        ("is killed by signal: Killed. ", "memory runs out"),
        ("is killed by signal: Segmentation fault. ", "crashed (segmentation fault)"),
        (
            "is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.",
            "--shm-size",
        ),
        ("exited unexpectedly with exit code 3. ", "ended without saying why"),
    ],
)
def test_what_torch_says_is_put_into_words(said: str, words: str) -> None:
    assert words in str(explain(RuntimeError(f"DataLoader worker (pid 123) {said}")))


@pytest.mark.parametrize("state, blamed", [(worker_watch._LOADING, True), (worker_watch._IDLE, False)])
def test_a_worker_that_died_while_a_batch_was_handed_over(state: int, blamed: bool, monkeypatch) -> None:
    """The system may tell of the connection first; other connections are lost without any worker's fault."""
    note = worker_watch._Note(2**30, state, 2, BAD, int(time.time()), Pictures("nothing"))
    monkeypatch.setattr(worker_watch, "_notes", lambda: iter([note]))
    found = explain(ConnectionResetError(104, "Connection reset by peer"))
    assert ("ended without saying why, while it loaded sample 5 of epoch 3" in str(found)) == blamed
    assert (found is not None) == blamed


def test_a_worker_that_hangs_is_named_and_ended() -> None:
    message = fault(Pictures("hang"), timeout=1)
    assert "has not delivered its batch in time" in message and "sample 5, photos/5.jpg" in message


def test_the_wait_is_bounded_unless_the_config_says_how_long() -> None:
    assert watch(DataLoader(Pictures(""), num_workers=1)).timeout == worker_watch.DEFAULT_TIMEOUT
    assert watch(DataLoader(Pictures(""), num_workers=1, timeout=7)).timeout == 7
    alone = DataLoader(Pictures(""))
    assert watch(alone).timeout == 0 and alone.worker_init_fn is None


def test_what_is_loaded_stays_the_same() -> None:
    loader = watch(DataLoader(Pictures(""), num_workers=2, batch_size=4, persistent_workers=True))
    for _ in range(2):
        assert torch.cat(list(loader)).tolist() == list(range(8))


def test_paths_of_wrapped_data_sets() -> None:
    class Known:
        def get_data_info(self, index):
            return {"img_path": f"{index}.png"}

    class Wrapper:
        def __init__(self, dataset):
            self.dataset = dataset

    assert worker_watch.path_of(Wrapper(Known()), 3) == "3.png"
    assert worker_watch.path_of(Wrapper([1]), 0) is None


def test_other_errors_are_not_ours() -> None:
    assert explain(ValueError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert explain(RuntimeError("timed out after 3 s in gloo")) is None


def test_workers_outlive_signals_to_all_but_not_their_parents() -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the workers too; their parent still needs them for its last step."""
    batches = iter(watch(DataLoader(Pictures(""), num_workers=1, batch_size=1, prefetch_factor=1)))
    next(batches)
    (worker,) = batches._workers
    send = f"import os\nfor number in (2, 10, 15): os.kill({worker.pid}, number)"
    subprocess.run([sys.executable, "-c", send], check=True)
    assert [int(batch) for batch in itertools.islice(batches, 3)] == [1, 2, 3]
    worker.terminate()
    worker.join(300)
    assert worker.exitcode == 0


def test_the_shared_file_goes_with_the_loader() -> None:
    loader = watch(DataLoader(Subset(Pictures(""), range(4)), num_workers=1))
    path = Path(loader.worker_init_fn.path)
    assert path.is_file()
    del loader
    assert not path.exists()
