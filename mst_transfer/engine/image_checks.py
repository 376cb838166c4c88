"""Makes pipelines check every image file, and counts the images that training leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.hooks import Hook

from mst_transfer.files.image_files import MAX_PIXELS
from mst_transfer.runs.unreadable_images import LIST_NAME, UnreadableLimit, read_list, write_list

OPTIONS = "image_checks"  # entry of a config: the fields of ImageChecks, or False for mmcv's own loading
INFO = "unreadable_images"  # entry of the message hub, and of results.json


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
        checks.limit()
        return checks

    def limit(self) -> UnreadableLimit:
        """When there are too many."""
        return UnreadableLimit(self.max_unreadable_share, self.min_unreadable)


def list_of_rank(work_dir: str, rank: int) -> Path:
    """Where one process's workers write while the run lasts; at the end all are in the main one's."""
    return Path(work_dir) / (LIST_NAME if rank == 0 else f"unreadable_images.rank{rank}.txt")


def check_pipelines(dataset: Any, checks: ImageChecks, list_file: Path | None) -> None:
    """Makes every pipeline of a data set, inside those that repeat, join or mix others too, check image files.

    Args:
        dataset: of mmengine's kind; one in test mode leaves out no sample.
        checks: what is checked.
        list_file: names the samples that are left out; None if none may be.
    """
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    if isinstance(inner, Sequence) and inner[0] is not None:
        for one in inner:
            check_pipelines(one, checks, list_file)
    elif hasattr(dataset, "pipeline"):
        skips = list_file is not None and not getattr(dataset, "test_mode", False)
        options: dict[str, Any] = dict(skip_unreadable=True, list_file=str(list_file)) if skips else {}
        dataset.pipeline = _checked(dataset.pipeline, checks, options)


def _checked(node: Any, checks: ImageChecks, options: dict[str, Any]) -> Any:
    """A transform, or a container of some, with our loaders in the place of mmcv's and mmseg's."""
    from mmcv.transforms import BaseTransform, LoadImageFromFile

    from mst_transfer.datasets.load_image import LoadImage, LoadSegMap

    kind = type(node)
    if kind is LoadImageFromFile:
        both = dict(max_pixels=checks.max_pixels, max_aspect_ratio=checks.max_aspect_ratio)
        return LoadImage.like(node, **both, **options)
    if kind.__module__ == "mmseg.datasets.transforms.loading" and kind.__name__ == "LoadAnnotations":
        return LoadSegMap(node, max_pixels=checks.max_pixels, **options)
    if kind in (list, tuple):
        return kind(_checked(value, checks, options) for value in node)
    if kind is dict:
        return {key: _checked(value, checks, options) for key, value in node.items()}
    if isinstance(node, BaseTransform) or kind.__name__ == "Compose":
        for name, value in list(vars(node).items()):
            setattr(node, name, _checked(value, checks, options))
    return node


class UnreadableImagesHook(Hook):
    """Logs and counts the images that training skips, and stops a run with too many of them.

    Args:
        limit: how many there may be; each process judges its own at every step, all together at the end of an epoch.
    """

    def __init__(self, limit: UnreadableLimit) -> None:
        self.limit = limit
        self._found: dict[str, str] = {}
        self._size = 0

    def before_train(self, runner: Any) -> None:
        """A new run begins a new list; a resumed one goes on."""
        path = list_of_rank(runner.work_dir, get_rank())
        if not runner.iter:
            path.unlink(missing_ok=True)
        self._found, self._size = read_list(path), path.stat().st_size if path.is_file() else 0

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
