"""Checks that mmseg can put the images of a loader into batches."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from mst_transfer.configs.datasets import all_datasets, dataset_class, is_segmentation
from mst_transfer.files.image_files import MAX_PIXELS
from mst_transfer.preflight.data_files import MAX_IMAGES, image_size
from mst_transfer.preflight.findings import Finding
from mst_transfer.preflight.segmentation_masks import list_pairs

_FILES = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")  # steps that need more than an array
_DRAWS = 3  # of each size, where a pipeline may be random


def check_batches(cfg: Any, loader: str, max_pixels: int = MAX_PIXELS) -> Iterator[Finding]:
    """Refuses batches of images that come out of the pipeline in several sizes, which mmseg cannot join.

    It pads training images to ``data_preprocessor.size`` but no further, and images of validation and test not at all.
    Pipelines are run on empty images of the least and largest sizes of up to ``MAX_IMAGES`` files.
    """
    data, scope = cfg.get(loader) or {}, str(cfg.get("default_scope") or "mmengine")
    batch_size = int(data.get("batch_size") or 1)
    preprocessor = (cfg.get("model") or {}).get("data_preprocessor") or {}
    limit = preprocessor.get("size") if loader == "train_dataloader" else None
    if batch_size == 1 or (loader == "train_dataloader" and limit is None):  # padded to the largest (size_divisor)
        return
    found = set()
    for place, dataset in all_datasets(cfg, [loader]):
        kind = dataset_class(dataset, scope)
        if is_segmentation(kind) and not dataset.get("backend_args"):
            found |= _sizes_after(dataset.get("pipeline") or (), _sizes_of(place, dataset, kind, max_pixels), scope)
    padded = {tuple(np.maximum(size, limit)) if limit else size for size in found}
    if len(padded) < 2:
        return
    seen = " and ".join(f"{width} × {height}" for height, width in (min(found), max(found)))
    text = f"{loader}: batch_size={batch_size}, but its pipeline gives images of several sizes, such as {seen} pixels, "
    if limit:
        yield Finding(
            f"{text}and mmseg pads to model.data_preprocessor.size={tuple(limit)} (rows, columns) only. Add "
            f"dict(type='RandomCrop', crop_size={tuple(limit)}) to the pipeline, enlarge that size, or set "
            f"{loader}.batch_size=1"
        )
    else:
        yield Finding(f"{text}which mmseg cannot validate or test together. Set {loader}.batch_size=1")


def _sizes_of(place: str, dataset: Mapping[str, Any], kind: Any, max_pixels: int) -> set[tuple[int, int]]:
    """Width and height of the images that are narrowest, widest, lowest, highest, flattest and steepest."""
    sizes = []
    with suppress(ValueError):  # no image, which other checks say
        images = [image for image, _ in list_pairs(place, dataset, kind)]
        for path in images[:: max(-(-len(images) // MAX_IMAGES), 1)]:
            with suppress(ValueError):
                sizes.append(image_size(path, max_pixels))
    keys = (lambda size: size[0], lambda size: size[1], lambda size: size[0] / size[1])
    return {choose(sizes, key=key) for key in keys for choose in (min, max) if sizes}


def _sizes_after(pipeline: Sequence[Any], sizes: set[tuple[int, int]], scope: str) -> set[tuple[int, int]]:
    """Rows and columns that images of these widths and heights come out with; empty if a step wants real data."""
    from mmcv.transforms import Compose
    from mmengine.registry import DefaultScope

    found = set()
    with DefaultScope.overwrite_default_scope(scope), suppress(Exception):  # of steps that are not ours
        steps = Compose(list(_geometry(pipeline)))
        for width, height in sorted(sizes) * _DRAWS:
            image, shape = np.zeros((height, width, 3), np.uint8), (height, width)
            mask = dict(gt_seg_map=image[..., 0].copy(), seg_fields=["gt_seg_map"])
            found.add(steps(dict(img=image, img_shape=shape, ori_shape=shape, **mask))["img"].shape[:2])
        return found
    return set()


def _geometry(pipeline: Sequence[Any]) -> Iterator[Any]:
    """The steps that files and packing have no part in; of augmented tests the first branch of each."""
    for step in pipeline:
        kind = str(step.get("type")).split(".")[-1]
        if kind == "TestTimeAug":
            yield from _geometry([branch[0] for branch in step["transforms"]])
        elif kind not in _FILES:
            yield step
