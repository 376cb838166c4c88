"""mmengine's checkpoint hook, which never has fewer whole checkpoints than it should."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper

from mst_transfer.files.atomic_files import (
    FileNotWrittenError,
    free_space,
    readable_size,
    remove_stale_temporaries,
    write_text_atomically,
)
from mst_transfer.files.checksums import BrokenCheckpointError, content_size, verify_checkpoint
from mst_transfer.runs.checkpoints import POINTER
from mst_transfer.runs.identity import KEY, check_identity, run_identity

ADVICE = ". Earlier checkpoints are as they were: when this is mended, go on with --resume"


class CheckpointNotSavedError(RuntimeError):
    """A checkpoint could not be written. Raised in every process; earlier checkpoints are as they were."""


class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` in another order: a new file is written, read back, and then only an old one goes.

    - ``last_checkpoint`` names a file once that is complete.
    - What cannot be written stops the run in every process, and nothing is removed.
    - Before the first step: what killed runs left half-written is removed, and the disk must have space for
      a checkpoint.
    - Each checkpoint says which run it is of; resuming another run's is refused.

    All arguments are mmengine's.
    """

    file_backend: Any

    def before_train(self, runner: Any) -> None:
        """mmengine's preparations; then old files, and space.

        Raises:
            CheckpointNotSavedError: Not even one checkpoint would fit.
        """
        kept = runner.message_hub.runtime_info.get("keep_ckpt_ids", [])
        super().before_train(runner)
        surplus = kept[: -self.max_keep_ckpts] if self.max_keep_ckpts > 0 else []
        self._together(lambda: self._prepare_folder(runner, surplus), "")

    def _prepare_folder(self, runner: Any, surplus: list[int]) -> None:
        for step in surplus:
            self.remove_beside(step)
        if not self._is_local():
            return
        Path(self.out_dir).mkdir(parents=True, exist_ok=True)
        for folder in {Path(self.out_dir), Path(runner.work_dir)}:
            removed = remove_stale_temporaries(folder)
            if removed:
                runner.logger.info(f"removed what a killed run left half-written in {folder}: {', '.join(removed)}")
        needed, free = self.checkpoint_size(runner), free_space(self.out_dir)
        if free is not None and free < needed:
            raise CheckpointNotSavedError(
                f"a checkpoint takes about {readable_size(needed)}, {readable_size(free)} are free in {self.out_dir}: "
                "not even one can be written. Next step: make space, or name a --work-dir on another disk"
            )

    def checkpoint_size(self, runner: Any) -> int:
        """Estimates the bytes of one checkpoint, with what stands beside it."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        size = content_size(model.state_dict()) + self.bytes_beside(runner)
        optimizer = getattr(runner.optim_wrapper, "optimizer", None) if self.save_optimizer else None
        for group in [] if optimizer is None else optimizer.param_groups:  # it has no state before its first step
            states = 2 if "betas" in group else bool(group.get("momentum"))  # tensors kept for each parameter
            size += states * sum(parameter.nbytes for parameter in group["params"] if parameter.requires_grad)
        return size

    def bytes_beside(self, runner: Any) -> int:
        """Size of the further files that are written with each checkpoint."""
        return 0

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Says which run this is."""
        checkpoint["meta"][KEY] = run_identity(runner.cfg)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Compares runs when one is resumed.

        Raises:
            OtherRunError: Model or data are others.
        """
        if runner._resume and "meta" in checkpoint:
            warning = check_identity(checkpoint["meta"], runner.cfg, str(runner._load_from or "to resume"))
            if warning:
                runner.logger.warning(warning)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        hub, keep = runner.message_hub, self.max_keep_ckpts > 0
        before, last = list(self.keep_ckpt_ids) if keep else [], hub.runtime_info.get("last_ckpt")
        ids = [*(one for one in before if one != step), step]
        if keep:  # with those that go next: a resumed run finds them in the checkpoint and removes them
            hub.update_info("keep_ckpt_ids", ids)
        hub.update_info("last_ckpt", self.last_ckpt)
        too_old = ids[: -self.max_keep_ckpts] if keep else []
        try:
            self._together(lambda: self._write(runner, step, dict(meta), too_old))
        except CheckpointNotSavedError:
            if keep:
                hub.update_info("keep_ckpt_ids", before)
            if last is not None:
                hub.update_info("last_ckpt", last)
            raise
        if keep:
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(ids[len(too_old) :])
            hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))

    def _write(self, runner: Any, step: int, meta: dict, too_old: list[int]) -> None:
        """In the main process: the files of a step, then the pointer to them, then old ones go."""
        self._check_folder()
        self.write_beside(runner, step, meta)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if too_old:
            self._read_back(str(self.last_ckpt))
        write_text_atomically(Path(runner.work_dir) / POINTER, str(self.last_ckpt))
        for old in too_old:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))
            self.remove_beside(old)

    def write_beside(self, runner: Any, step: int, meta: dict) -> None:
        """Writes what goes with a checkpoint, before it."""

    def remove_beside(self, step: int) -> None:
        """Removes what went with a checkpoint."""

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        """mmengine's would remove a former best file first: it sees none, and that goes after the new one is there."""
        former = self._best_paths
        self._best_paths = dict.fromkeys(former)
        try:
            self._together(lambda: self._write_best(runner, metrics), in_all=True)
        finally:
            self._best_paths = {name: path or former.get(name) for name, path in self._best_paths.items()}
        best = set(self._best_paths.values())
        too_old = sorted(str(path) for path in set(former.values()) - best if path)
        if too_old:
            self._together(lambda: self._remove_former_best(runner, too_old))

    @property
    def _best_paths(self) -> dict[str, Any]:
        """Metric → best file; mmengine keeps the file of a single metric without its name."""
        return dict(getattr(self, "best_ckpt_path_dict", None) or {"": getattr(self, "best_ckpt_path", None)})

    @_best_paths.setter
    def _best_paths(self, paths: dict[str, Any]) -> None:
        if "" in paths:
            self.best_ckpt_path = paths[""]
        else:
            self.best_ckpt_path_dict = paths

    def _write_best(self, runner: Any, metrics: dict) -> None:
        if is_main_process():
            self._check_folder()
        super()._save_best_checkpoint(runner, metrics)

    def _remove_former_best(self, runner: Any, paths: list[str]) -> None:
        for path in self._best_paths.values():
            self._read_back(str(path))
        for path in paths:
            if self._remove(path):
                runner.logger.info(f"removed {path}, which was the best before")

    def _read_back(self, path: str) -> None:
        """Raises ``BrokenCheckpointError`` if what was just written is not what the disk gives back."""
        if Path(path).is_file():
            verify_checkpoint(path)

    def _remove(self, path: str) -> bool:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
            return True
        return False

    def _is_local(self) -> bool:
        return "://" not in str(self.out_dir)

    def _check_folder(self) -> None:
        """A folder that has gone is not made again: it may be the place where a disk was mounted."""
        if self._is_local() and not Path(self.out_dir).is_dir():
            missing = FileNotFoundError(errno.ENOENT, "the run's folder is gone")
            raise FileNotWrittenError(Path(self.out_dir) / "a checkpoint", missing)

    def _together(self, act: Callable[[], None], then: str = ADVICE, in_all: bool = False) -> None:
        """Acts in the main process, or in all; a fault there is raised in every process.

        Raises:
            CheckpointNotSavedError: A file could not be written, or is not as it was written.
        """
        fault: list[str | None] = [None]
        cause: Exception | None = None
        if in_all or is_main_process():
            try:
                act()
            except (OSError, BrokenCheckpointError, CheckpointNotSavedError) as error:
                fault, cause = [f"{error}{then}"], error
        broadcast_object_list(fault)
        if fault[0] is not None:
            raise CheckpointNotSavedError(fault[0]) from cause
