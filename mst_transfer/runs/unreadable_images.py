"""Lists the images of a data set that could not be read, and stops a run that has too many of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.hooks import Hook

from mst_transfer.files.atomic_files import write_atomically
from mst_transfer.files.image_files import UnreadableImageError, shown_path

LIST_NAME = "unreadable_images.txt"
INFO = "unreadable_images"  # entry of the message hub, and of results.json
MAX_IN_A_ROW = 100  # replacements that are unreadable too
_MAX_SHOWN = 5


class TooManyUnreadableError(UnreadableImageError):
    """So many images could not be read that the data set must be looked at."""


@dataclass(frozen=True)
class UnreadableLimit:
    """How many images of a data set may be unreadable.

    Raises:
        ValueError: out of range.
    """

    max_share: float = 0.01  # of its images, in [0, 1]
    min_count: int = 10  # so few never stop a run, whatever their share

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise ValueError(f"max_unreadable_share={self.max_share} must lie in [0, 1]; 1 never stops a run")
        if self.min_count < 0:
            raise ValueError(f"min_unreadable={self.min_count} must be at least 0")

    def check(self, found: Mapping[str, str], num_images: int, list_file: str | os.PathLike[str]) -> None:
        """Compares the files found so far, with their reasons, with the limit; ``list_file`` names all.

        Raises:
            TooManyUnreadableError: gives examples and the way out.
        """
        allowed = max(self.min_count, int(self.max_share * num_images))
        if len(found) > allowed:
            raise TooManyUnreadableError(
                f"{len(found)} of {num_images:,} images cannot be read, more than {allowed} "
                f"(max_unreadable_share={self.max_share:g}, min_unreadable={self.min_count}): {examples(found)}. "
                f"All are named in {list_file}. Next step: complete the data set or remove those files; or raise "
                "max_unreadable_share"
            )


def examples(found: Mapping[str, str]) -> str:
    """The first few, with their reasons."""
    some = [f"{name} ({reason})" for name, reason in list(found.items())[:_MAX_SHOWN]]
    return "; ".join(some) + ("; …" if len(found) > _MAX_SHOWN else "")


def append_to_list(path: str | os.PathLike[str], name: str, reason: str) -> None:
    """Adds a line in one go, so that several workers can write at once."""
    line = f"{name}\t{_one_line(reason)}\n".encode(errors="backslashreplace")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def read_list(path: str | os.PathLike[str]) -> dict[str, str]:
    """File → reason, in the order found; empty if there is no list."""
    found: dict[str, str] = {}
    if Path(path).is_file():
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, reason = line.partition("\t")
            found.setdefault(name, reason)
    return found


def write_list(path: str | os.PathLike[str], found: Mapping[str, str]) -> None:
    """Writes the whole list, sorted; removes the file where nothing was found."""
    if not found:
        Path(path).unlink(missing_ok=True)
        return
    lines = [f"{name}\t{_one_line(reason)}\n" for name, reason in sorted(found.items())]
    text = "".join(lines).encode(errors="backslashreplace")
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(text) and None)


def _one_line(text: Any) -> str:
    return shown_path(" ".join(str(text).split()))


def list_of_rank(work_dir: str, rank: int) -> Path:
    """Where one process's workers write while the run lasts; at the end all are in the main one's."""
    return Path(work_dir) / (LIST_NAME if rank == 0 else f"unreadable_images.rank{rank}.txt")


class UnreadableImagesHook(Hook):
    """Logs and counts the images that training skips, and stops a run with too many of them.

    Workers name them in the list of their process. Each process judges its own at every step, all together at the end
    of an epoch. For the arguments see ``UnreadableLimit``.
    """

    def __init__(self, max_unreadable_share: float = 0.01, min_unreadable: int = 10) -> None:
        self.limit = UnreadableLimit(max_unreadable_share, min_unreadable)
        self._found: dict[str, str] = {}
        self._size = 0

    def before_train(self, runner: Any) -> None:
        """A new run begins a new list; a resumed one goes on."""
        path = list_of_rank(runner.work_dir, get_rank())
        if not runner.iter:
            path.unlink(missing_ok=True)
        self._found, self._size = read_list(path), path.stat().st_size if path.is_file() else 0
        dataset = runner.train_loop.dataloader.dataset
        if hasattr(dataset, "list_file"):  # pre-training's; in heads' pipelines the transforms that load have it
            dataset.list_file = str(path)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Looks whether workers have named more.

        Raises:
            TooManyUnreadableError: too many.
        """
        path = list_of_rank(runner.work_dir, get_rank())
        size = path.stat().st_size if path.is_file() else 0
        if size == self._size:
            return
        self._size, now = size, read_list(path)
        for name in now.keys() - self._found.keys():
            runner.logger.warning(f"{name} cannot be read: {now[name]}. Another sample takes its place")
        self._found = {**self._found, **now}
        self.limit.check(self._found, self._num_images(runner), path)

    def after_train_epoch(self, runner: Any) -> None:
        """Puts the lists of all processes together.

        Raises:
            TooManyUnreadableError: the same on every process.
        """
        self._found = {name: reason for found in all_gather_object(self._found) for name, reason in found.items()}
        self.limit.check(self._found, self._num_images(runner), list_of_rank(runner.work_dir, get_rank()))

    def after_train(self, runner: Any) -> None:
        """Writes the whole list, and says how many there are."""
        path = list_of_rank(runner.work_dir, 0)
        if is_main_process():
            write_list(path, self._found)
        else:
            list_of_rank(runner.work_dir, get_rank()).unlink(missing_ok=True)
        place = f", named in {path}" if self._found else ""
        runner.logger.info(f"images that could not be read and were skipped: {len(self._found)}{place}")
        runner.message_hub.update_info(INFO, {"skipped": len(self._found), "list": LIST_NAME if self._found else None})

    @staticmethod
    def _num_images(runner: Any) -> int:
        return len(runner.train_loop.dataloader.dataset)
