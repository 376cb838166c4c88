"""Makes pipelines check every image file, and counts the images that training leaves out."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mst_transfer.files.image_files import MAX_PIXELS
from mst_transfer.runs.unreadable_images import UnreadableLimit

OPTIONS = "image_checks"  # entry of a config: the fields of ImageChecks, or False for mmcv's own loading


@dataclass(frozen=True)
class ImageChecks:
    """The config's entry ``image_checks``."""

    max_pixels: int = MAX_PIXELS  # width × height that the header of a file may declare
    max_aspect_ratio: float = 100.0  # longer side by shorter side of an image
    max_unreadable_share: float = 0.01  # of the training images that may be skipped, in [0, 1], before the run stops
    min_unreadable: int = 10  # so few never stop it

    @classmethod
    def of(cls, cfg: Any) -> "ImageChecks | None":
        """The checks that a config asks for; None where it asks for none.

        Raises:
            ValueError: an option is unknown or out of range.
        """
        options = cfg.get(OPTIONS, {})
        if options is False:
            return None
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(options or {}) - set(known)):
            raise ValueError(f"{OPTIONS} has no option {', '.join(unknown)}; it has {', '.join(known)}")
        checks = cls(**(options or {}))
        for name in ("max_pixels", "max_aspect_ratio"):
            if not getattr(checks, name) >= 1:
                raise ValueError(f"{OPTIONS}.{name}={getattr(checks, name)!r} must be at least 1")
        UnreadableLimit(checks.max_unreadable_share, checks.min_unreadable)  # refuses wrong ones
        return checks


def check_pipelines(dataset: Any, checks: ImageChecks, list_file: Path | None) -> None:
    """Makes every pipeline of a data set, inside those that repeat, join or mix others too, check image files.

    ``list_file`` gets the names of the samples that are left out: none in test mode, or without such a file.
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
