"""Shows the first images of each validation, with labels and predictions, in the trackers of a run."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook

from mst_transfer.datasets.load_image import LoadImage

NUM_PICTURES = 4


class ValPicturesHook(Hook):
    """Draws with the run's visualizer, mmdet's or mmseg's; where that fails it says so once, and draws no more."""

    _failed = False

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """The first image of each of the first batches."""
        if self._failed or not outputs or batch_idx >= NUM_PICTURES or runner.rank != 0:
            return
        try:
            image = LoadImage()(dict(img_path=outputs[0].img_path))["img"][..., ::-1]
            options = dict(with_labels=False) if "pred_sem_seg" in outputs[0] else {}  # they take seconds
            runner.visualizer.add_datasample(f"val_{batch_idx}", image, outputs[0], step=runner.iter, **options)
        except Exception as error:  # a picture is not worth a run
            self._failed = True
            runner.logger.warning(f"no pictures of validations: {type(error).__name__}: {error}")
