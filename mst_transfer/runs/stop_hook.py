"""Stops a run, in all processes after the same step, with a checkpoint to go on from."""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook

from mst_transfer.runs import stop

INTERRUPTED = "interrupted_ckpt"  # entry of the message hub: a checkpoint beside the regular ones, and its step
VALIDATED = "newest_validation"  # entry of the message hub: iteration whose validation has begun
_LAST = "last_ckpt"


class StopHook(Hook):
    """Saves and stops when a signal has asked for it: after a step, or in the middle of a validation.

    An optimizer wrapper with ``carries_stop`` brings the processes' wishes together in its steps; for others this
    hook does. The checkpoint is the run's checkpoint hook's. Where that counts epochs, its name is ``iter_N.pth``, and
    it goes when the next regular one is there.

    Raises:
        StoppedBySignal: in every process.
    """

    priority = "LOWEST"

    def __init__(self) -> None:
        self._last: str | None = None
        self._saved_at = -1
        self._val_in_step = False

    def before_train(self, runner: Any) -> None:
        """The checkpoint resumed from needs no second copy."""
        stop.note_begun()
        self._last = runner.message_hub.runtime_info.get(_LAST)
        if self._last is not None and runner._resume:
            self._saved_at = runner.iter

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Looks at the wishes after each step."""
        self._note_checkpoint(runner, runner.iter + 1)
        carried = getattr(runner.optim_wrapper, "carries_stop", False)
        largest = stop.agreed() if carried else stop.agree_now(_device(runner))
        if largest:
            self._stop(runner, runner.iter + 1, largest)

    def after_train_epoch(self, runner: Any) -> None:
        """Checkpoints of whole epochs are written here."""
        self._note_checkpoint(runner, runner.iter)

    def before_val_epoch(self, runner: Any) -> None:
        """Processes with equally many batches can look together at each."""
        from mmengine.dist import all_gather_object

        self._val_in_step = len(set(all_gather_object(len(runner.val_dataloader)))) == 1

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """A validation that is broken off is made anew after resuming."""
        if not self._val_in_step or not stop.agree_now(_device(runner)):
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.after_val_epoch(runner)  # weights and their average back in their places
        runner.message_hub.runtime_info.pop(VALIDATED, None)
        self._stop(runner, runner.iter, stop.agreed())

    def _note_checkpoint(self, runner: Any, done: int) -> None:
        """Which step the newest checkpoint is of; the one of an interruption goes when there is a newer one."""
        hub = runner.message_hub
        newest = hub.runtime_info.get(_LAST)
        if newest == self._last:
            return
        self._last, self._saved_at = newest, done
        path, step = hub.runtime_info.pop(INTERRUPTED, (None, 0))
        if path is not None and path != newest and is_main_process():
            with suppress(OSError):
                Path(path).unlink(missing_ok=True)
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook) and hasattr(hook, "remove_beside"):
                    _of_iterations(hook).remove_beside(step)

    def _stop(self, runner: Any, done: int, largest: int) -> None:
        message = f"stopped by a signal after {done} steps of training; {save_now(runner, done, self._saved_at)}"
        runner.logger.warning(message)
        raise stop.StoppedBySignal(message, largest)


def save_now(runner: Any, done: int, saved_at: int = -1) -> str:
    """Saves a checkpoint after ``done`` steps, by the run's checkpoint hook, and says where.

    That of the step ``saved_at``, the newest one's, is not saved again.
    """
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if hook is None:
        return "this run has no checkpoint hook, so nothing was saved"
    if saved_at != done:
        meta = dict(epoch=runner.epoch, iter=done)
        if hook.by_epoch:
            hook = _of_iterations(hook)
            path = str(Path(str(hook.out_dir)) / hook.filename_tmpl.format(done))
            runner.message_hub.update_info(INTERRUPTED, (path, done))
        hook._save_checkpoint_with_step(runner, done, meta=meta)
    return f"saved in {runner.message_hub.runtime_info.get(_LAST)}; the same command with --resume goes on"


def _of_iterations(hook: CheckpointHook) -> Any:
    """The same hook for one checkpoint between epochs, which does not count among those that are kept."""
    other = copy.copy(hook)
    other.by_epoch, other.filename_tmpl, other.max_keep_ckpts = False, "iter_{}.pth", -1
    return other


def _device(runner: Any) -> Any:
    return next(runner.model.parameters()).device
