"""Which images a run could not read: counted and named over all processes, and a limit."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook

from mst_transfer.files.image_files import UnreadableImageError, shown_path
from mst_transfer.files.image_folder import read_image
from mst_transfer.runs.unreadable_images import LIST_NAME, UnreadableLimit, append_to_list, read_list, write_list
from pretrain.registry import HOOKS


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Names the files that could not be read in ``unreadable_images.txt`` of the work dir, each with the reason.

    Which files they were follows from the samples' ``num_unreadable``, so nothing is lost between workers. A resumed
    run goes on with the list. A process that alone has met too many stops at once; all together are judged at the end
    of each epoch.

    Args:
        max_unreadable_share: of the data set's images that may be unreadable, in [0, 1].
        min_unreadable: so few never stop a run.

    Raises:
        TooManyUnreadableError: more than both allow.
    """

    def __init__(self, max_unreadable_share: float = 0.01, min_unreadable: int = 10) -> None:
        self.limit = UnreadableLimit(max_unreadable_share, min_unreadable)
        self._found: dict[str, str] = {}
        self._num_replaced = 0

    def before_train(self, runner: Any) -> None:
        """Take up the list of the run that is resumed, or begin a new one."""
        if not runner.iter and is_main_process():
            self._list(runner).unlink(missing_ok=True)
        self._found = read_list(self._list(runner)) if runner.iter else {}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Iterable[dict] | None = None, outputs: Any = None
    ) -> None:
        """Count and name this process's."""
        for batch in data_batch or ():
            for index, count in zip(batch["index"].tolist(), batch["num_unreadable"].tolist(), strict=True):
                if count:
                    self._note(runner, index, count)

    def _note(self, runner: Any, index: int, count: int) -> None:
        dataset = runner.train_loop.dataloader.dataset
        self._num_replaced += 1
        for path in dataset.given_up(runner.epoch, index, count):
            name = shown_path(path)
            if name not in self._found:
                self._found[name] = _reason(path, dataset)
                runner.logger.warning(f"image {name} cannot be read: {self._found[name]}. Another takes its place")
                if is_main_process():
                    append_to_list(self._list(runner), name, self._found[name])
        self.limit.check(self._found, len(dataset), self._list(runner))

    def after_train_epoch(self, runner: Any) -> None:
        """Put all processes' lists together.

        Raises:
            TooManyUnreadableError: the same on every process.
        """
        parts: list[tuple[int, dict[str, str]]] = all_gather_object((self._num_replaced, self._found))
        self._num_replaced = 0
        num_replaced = sum(count for count, _ in parts)
        self._found = {name: reason for _, found in parts for name, reason in found.items()}
        if not self._found:
            return
        if is_main_process():
            write_list(self._list(runner), self._found)
            runner.logger.warning(
                f"epoch {runner.epoch + 1}: {num_replaced} sample(s) were made of other images, since their own could "
                f"not be read; {len(self._found)} of {len(runner.train_loop.dataloader.dataset):,} images so far, "
                f"named in {self._list(runner)}"
            )
        self.limit.check(self._found, len(runner.train_loop.dataloader.dataset), self._list(runner))

    def after_train(self, runner: Any) -> None:
        """Say it once more where the log ends."""
        runner.message_hub.update_info("num_unreadable_images", len(self._found))
        if is_main_process():
            place = f", named in {self._list(runner)}" if self._found else ""
            runner.logger.info(f"images that could not be read in this run: {len(self._found)}{place}")

    def _list(self, runner: Any) -> Path:
        return Path(runner.work_dir) / LIST_NAME


def _reason(path: str | os.PathLike[str], dataset: Any) -> str:
    try:
        read_image(path, dataset.exif_orientation, dataset.max_pixels)
    except UnreadableImageError as error:
        return str(error).partition("': ")[2] or str(error)
    return "could not be read when it was needed"
