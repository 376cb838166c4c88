"""The Runner of detectors and segmentors: checks images, leaves out bad steps, ends well, resumes exactly.

Configs, and what is dumped of them, stay as they were written.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.device import get_device
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from mst_transfer.datasets.load_image import LoadImage
from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.engine.checkpoints import check_coverage
from mst_transfer.engine.image_checks import ImageChecks, check_pipelines
from mst_transfer.engine.losses_in_fp32 import losses_in_fp32
from mst_transfer.engine.nonfinite import NonfiniteHook, guarded
from mst_transfer.engine.resume.order import UnknownOrderError
from mst_transfer.runs.nonfinite_steps import DEFAULT_LIMIT
from mst_transfer.runs.resuming_runner import ResumingRunner
from mst_transfer.runs.stop_hook import StopHook
from mst_transfer.runs.unreadable_images import UnreadableImagesHook, list_of_rank
from mst_transfer.runs.workers import watch

LIMIT = "max_nonfinite_steps"  # entries of a config
EXACT_RESUME = "exact_resume"  # False: mmengine's own loops
NUM_PICTURES = 4  # of a validation, for trackers
_EXACT_LOOPS = {"EpochBasedTrainLoop": "ExactEpochLoop", "IterBasedTrainLoop": "ExactIterLoop"}


class TransferRunner(ResumingRunner):
    """mmengine's Runner for whole runs of heads on a backbone.

    - Image files are read by ``LoadImage`` in the place of mmcv's loader, and
      those that cannot be read are left out of training (entry ``image_checks``).
    - Steps whose loss or gradient is not finite are left out (entry ``max_nonfinite_steps``).
    - A run that is killed at any moment and resumed ends as if nothing had happened (entry ``exact_resume``).
    - On the CPU, matrix products take the quicker library.
    - Nothing is written outside the work dir.
    """

    _may_skip = False

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """mmengine's, which takes what fits; weights that do not cover the backbone are refused."""
        checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        weights = {name.removeprefix("module."): one for name, one in checkpoint.get("state_dict", checkpoint).items()}
        uncovered = check_coverage(getattr(self.model, "module", self.model), weights, filename)
        if uncovered:
            self.logger.warning(uncovered)
        return checkpoint

    def build_train_loop(self, loop: Any) -> Any:
        """Builds the exact counterpart of the config's loop, and the hooks that only a run that trains needs."""
        checks = ImageChecks.of(self.cfg)
        self._may_skip = True  # only what is built here may leave out samples
        try:
            built = self._exact_loop(loop) or super().build_train_loop(loop)
        finally:
            self._may_skip = False
        self.register_hook(NonfiniteHook(int(self.cfg.get(LIMIT, DEFAULT_LIMIT))), priority="VERY_HIGH")
        self.register_hook(StopHook(), priority="LOWEST")
        if self.cfg.get("track"):
            self.register_hook(ValPicturesHook())
        if checks is not None:
            self.register_hook(
                UnreadableImagesHook(checks.max_unreadable_share, checks.min_unreadable), priority="NORMAL"
            )
        return built

    def _exact_loop(self, loop: Any) -> Any:
        """None where the config wants none, or there is no counterpart: mmengine resumes as well as it can."""
        if not isinstance(loop, dict) or not self.cfg.get(EXACT_RESUME, True):
            return None
        why = f"train_cfg.type={loop.get('type')!r} is a loop of its own"
        if (exact := exact_train_cfg(loop)) is not None:
            try:
                return super().build_train_loop(exact)
            except UnknownOrderError as error:
                why = str(error)
        self.logger.warning(f"{why}: whether it resumes exactly is up to it")
        return None

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """Builds the kind that the config says, guarded if there is a guard for it."""
        if not isinstance(optim_wrapper, dict):  # built already
            return super().build_optim_wrapper(optim_wrapper)
        built = super().build_optim_wrapper(guarded(optim_wrapper))
        if isinstance(built, AmpOptimWrapper) or getattr(built, "cpu_dtype", None) is not None:
            losses_in_fp32(self.model)
        return built

    def build_dataloader(self, dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> Any:
        """Builds mmengine's, whose workers are watched and whose pipelines check image files."""
        loader = watch(super().build_dataloader(dataloader, seed, diff_rank_seed))
        checks = ImageChecks.of(self.cfg)
        if checks is not None:
            check_pipelines(loader.dataset, checks, list_of_rank(self.work_dir, get_rank()) if self._may_skip else None)
        return loader

    def build_evaluator(self, evaluator: Any) -> Any:
        """Builds mmengine's; processes hand each other results in the run's own folder, not in the current one."""
        built = super().build_evaluator(evaluator)
        for metric in built.metrics:
            if metric.collect_device == "cpu" and metric.collect_dir is None:
                metric.collect_dir = str(Path(self._log_dir) / "results_of_processes")
        return built

    @contextmanager
    def _running(self) -> Iterator[None]:
        with quick_products(get_device()), super()._running():
            yield


class ValPicturesHook(Hook):
    """Shows the first images of each validation, with labels and predictions, in the trackers of a run.

    Draws with the run's visualizer, mmdet's or mmseg's; where that fails it says so once, and draws no more.
    """

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


def exact_train_cfg(train_cfg: dict[str, Any]) -> dict[str, Any] | None:
    """Gives the config of the exact loop that does what ``train_cfg`` says; None for loops that have no counterpart."""
    rest = {name: value for name, value in train_cfg.items() if name not in ("type", "by_epoch")}
    kind = train_cfg.get("type")
    if kind is None:
        kind = "EpochBasedTrainLoop" if train_cfg.get("by_epoch", True) else "IterBasedTrainLoop"
    name = kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("mmengine.")
    return dict(rest, type=f"mst_transfer.{_EXACT_LOOPS[name]}") if name in _EXACT_LOOPS else None
