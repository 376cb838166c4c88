"""A Runner whose pipelines check every image file; configs, and what is dumped of them, stay as they were written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank

from mst_transfer.engine.checkpoints import check_coverage
from mst_transfer.engine.guarded_runner import GuardedRunner
from mst_transfer.files.image_files import MAX_PIXELS
from mst_transfer.runs.unreadable_images import UnreadableImagesHook, UnreadableLimit, list_of_rank

OPTIONS = "image_checks"  # entry of a config: the fields of ImageChecks, or False for mmcv's own loading


@dataclass(frozen=True)
class ImageChecks:
    """The config's entry ``image_checks``.

    Args:
        max_pixels: width × height that the header of a file may declare.
        max_aspect_ratio: longer side by shorter side of an image.
        max_unreadable_share: of the training images that may be skipped, in [0, 1], before the run stops.
        min_unreadable: so few never stop it.
    """

    max_pixels: int = MAX_PIXELS
    max_aspect_ratio: float = 100.0
    max_unreadable_share: float = 0.01
    min_unreadable: int = 10

    @classmethod
    def of(cls, cfg: Any) -> ImageChecks | None:
        """The checks that a config asks for; None where it asks for none.

        Raises:
            ValueError: an option is unknown or out of range.
        """
        options = cfg.get(OPTIONS, {})
        if options is False:
            return None
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(options or {}) - set(known))
        if unknown:
            raise ValueError(f"{OPTIONS} has no option {', '.join(unknown)}; it has {', '.join(known)}")
        checks = cls(**(options or {}))
        for name in ("max_pixels", "max_aspect_ratio"):
            if not getattr(checks, name) >= 1:
                raise ValueError(f"{OPTIONS}.{name}={getattr(checks, name)!r} must be at least 1")
        UnreadableLimit(checks.max_unreadable_share, checks.min_unreadable)  # refuses wrong ones
        return checks


class CheckedRunner(GuardedRunner):
    """A Runner with :class:`~mst_transfer.datasets.load_image.LoadImage` in the place of mmcv's loader.

    It writes nothing outside its work dir.
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
        """Only what is built here may leave out samples."""
        checks = ImageChecks.of(self.cfg)
        self._may_skip = True
        try:
            built = super().build_train_loop(loop)
        finally:
            self._may_skip = False
        if checks is not None:
            self.register_hook(
                UnreadableImagesHook(checks.max_unreadable_share, checks.min_unreadable), priority="NORMAL"
            )
        return built

    def build_dataloader(self, dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> Any:
        """As mmengine's, and the pipelines of its data sets check."""
        loader = super().build_dataloader(dataloader, seed=seed, diff_rank_seed=diff_rank_seed)
        checks = ImageChecks.of(self.cfg)
        if checks is not None:
            for dataset in _leaves(loader.dataset):
                skip = self._may_skip and not getattr(dataset, "test_mode", False)
                options = dict(skip_unreadable=skip, list_file=str(list_of_rank(self.work_dir, get_rank())))
                _check_pipeline(dataset, checks, options if skip else {})
        return loader

    def build_evaluator(self, evaluator: Any) -> Any:
        """mmengine's; what processes hand each other goes through the run's own folder, not the current one."""
        built = super().build_evaluator(evaluator)
        for metric in built.metrics:
            if metric.collect_device == "cpu" and metric.collect_dir is None:
                metric.collect_dir = str(Path(self._log_dir) / "results_of_processes")
        return built


def _leaves(dataset: Any) -> Iterator[Any]:
    """Data sets that load, inside those that repeat, join or mix them."""
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    if isinstance(inner, Sequence) and inner[0] is not None:
        for one in inner:
            yield from _leaves(one)
    else:
        yield dataset


def _check_pipeline(dataset: Any, checks: ImageChecks, options: dict[str, Any]) -> None:
    from mmcv.transforms import BaseTransform, LoadImageFromFile

    from mst_transfer.datasets.load_image import LoadImage, LoadSegMap

    def checked(node: Any) -> Any:
        kind = type(node)
        if kind is LoadImageFromFile:
            both = dict(max_pixels=checks.max_pixels, max_aspect_ratio=checks.max_aspect_ratio)
            return LoadImage.like(node, **both, **options)
        if kind.__module__ == "mmseg.datasets.transforms.loading" and kind.__name__ == "LoadAnnotations":
            return LoadSegMap(node, max_pixels=checks.max_pixels, **options)
        if isinstance(node, list | tuple):
            return kind(map(checked, node)) if kind in (list, tuple) else node
        if kind is dict:
            return {key: checked(value) for key, value in node.items()}
        if isinstance(node, BaseTransform) or kind.__name__ == "Compose":
            for name, value in list(vars(node).items()):
                setattr(node, name, checked(value))
        return node

    if hasattr(dataset, "pipeline"):
        dataset.pipeline = checked(dataset.pipeline)


@contextmanager
def refused(refusal: type[Exception]) -> Iterator[None]:
    """Turns an unreadable image, found by whatever process, into a refusal of the run in a few words."""
    from mst_transfer.files.image_files import UnreadableImageError
    from mst_transfer.runs.unreadable_images import plain_message

    try:
        yield
    except UnreadableImageError as error:
        raise refusal(plain_message(error)) from error
