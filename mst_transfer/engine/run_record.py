"""Records a whole run, however often it was resumed: its time, and the figures of its end."""

import time
from typing import Any

from mmengine.hooks import Hook

from mst_transfer.engine.plan.unfinished_schedules import unfinished_schedules
from mst_transfer.engine.results import scalar_metrics

SECONDS = "seconds_of_training"  # entry of a checkpoint's meta
VALIDATION = "last_validation"  # entry of the message hub, and so of checkpoints: iteration → its figures


class RunRecordHook(Hook):
    """Keeps a run's seconds, and the figures of its last validation, from one start to the next.

    Before the first step it warns of schedulers that the run is too short for, and keeps that in ``unfinished``.
    ``start`` is when this process began, ``time.time()``; ``stretch`` is the batch plan's.
    """

    priority = "VERY_HIGH"  # before a checkpoint is written because a figure is the best so far

    def __init__(self, start: float, stretch: int = 1) -> None:
        self._start, self._stretch = start, stretch
        self.unfinished: list[str] = []

    @property
    def seconds(self) -> float:
        """Of the run: those before the checkpoint that it was resumed from, and those of this process."""
        return time.time() - self._start

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Takes over the time of the run that is resumed."""
        if runner._resume:
            self._start -= float(checkpoint.get("meta", {}).get(SECONDS, 0.0))

    def before_train(self, runner: Any) -> None:
        """Now it is known how many iterations an epoch has."""
        cfg = runner.cfg
        num_epochs = (cfg.get("train_cfg") or {}).get("max_epochs")
        self.unfinished = unfinished_schedules(cfg, runner.max_iters, num_epochs, self._stretch)
        for sentence in self.unfinished:
            runner.logger.warning(sentence)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Hands the time on."""
        checkpoint["meta"][SECONDS] = self.seconds

    def after_val_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        """Notes the figures, also if there are none."""
        runner.message_hub.update_info(VALIDATION, {runner.iter: scalar_metrics(metrics or {})})

    def final_metrics(self, runner: Any) -> dict[str, float]:
        """The figures of the last step's weights, e.g. ``coco/bbox_mAP``; empty if these were not validated."""
        noted = runner.message_hub.runtime_info.get(VALIDATION) or {}
        if runner.iter not in noted and runner.val_dataloader is not None:
            runner.logger.warning(
                f"the weights after iteration {runner.iter} were not validated (the last that were: "
                f"{max(noted, default='none')}), so results.json has no metrics. Next step: mst test CONFIG CHECKPOINT"
            )
        return dict(noted.get(runner.iter, {}))
