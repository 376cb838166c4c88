"""Classes and numbers of classes from the data, where a config leaves them open.

A config leaves them open with ``metainfo=dict(classes="auto")`` in one of its datasets, or, in COCO's format, by
saying nothing while no category of the file has the name of a COCO class.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from mst_transfer.configs.datasets import (
    AUTO,
    all_datasets,
    class_names,
    dataset_class,
    is_segmentation,
    numbers_by_file,
    own_classes,
)
from mst_transfer.datasets.coco_columns import read_categories
from mst_transfer.engine.fit.infer_mask_classes import mask_classes
from mst_transfer.preflight.findings import shown
from mst_transfer.preflight.heads import set_num_classes
from mst_transfer.preflight.paths import dataset_path, list_paths

_GOLDEN_ANGLE = 137.508  # degrees between the hues of neighbouring classes


def infer_classes(cfg: Any, former: int | None = None) -> list[str]:
    """Sets ``metainfo.classes`` of the datasets and ``num_classes`` of the heads, in place, where they are open.

    mmdet numbers classes in the order of the file, so that is the order taken; files of one run must agree. Data
    that are not there are left to the preflight checks.

    Args:
        cfg: an mmengine ``Config``.
        former: number of classes that the heads may have had; None is that of the dataset's class, 80 for COCO.

    Returns:
        Sentences that say what was set; empty if nothing was open.

    Raises:
        ValueError: if files disagree, categories cannot be told apart, or the config sets other classes or numbers.
    """
    scope = str(cfg.get("default_scope") or "mmengine")
    datasets = [(place, item, dataset_class(item, scope)) for place, item in all_datasets(cfg)]
    coco = [entry for entry in datasets if numbers_by_file(entry[2]) and entry[1].get("ann_file")]
    masks = [entry for entry in datasets if is_segmentation(entry[2])]
    return [*_infer_coco(cfg, coco, former), *_infer_masks(cfg, masks)]


def _there(dataset: Any) -> bool:
    paths = list_paths(dataset)
    return bool(paths) and all(map(os.path.exists, paths))


def _infer_coco(cfg: Any, datasets: Sequence[tuple[str, Any, Any]], former: int | None) -> Iterator[str]:
    readable = [entry for entry in datasets if _there(entry[1])]
    if not readable:
        return
    place, dataset, kind = readable[0]
    path = dataset_path(dataset, str(dataset["ann_file"]))
    usual = tuple(kind.METAINFO.get("classes") or ())
    if not any(own_classes(item) == AUTO for _, item, _ in datasets):
        if any(own_classes(item) is not None for _, item, _ in datasets):
            return
        try:
            found = {str(category.get("name")) for category in read_categories(path)}
        except ValueError:  # said by the preflight checks, with everything else
            return
        if not found or found & set(usual):
            return
    names = category_names(path)
    for other_place, other, _ in readable[1:]:
        if own_classes(other) not in (None, AUTO) or _is_left_over(other_place, other, names):
            continue
        _same_names(place, path, names, other_place, dataset_path(other, str(other["ann_file"])))
    for other_place, other, other_kind in datasets:
        own = own_classes(other)
        if own in (None, AUTO) and not _is_left_over(other_place, other, names):
            other["metainfo"] = _metainfo(other, names, usual)
        elif own is not None and class_names(other, other_kind) != names:
            raise ValueError(
                f"{other_place}.metainfo.classes={shown(class_names(other, other_kind))}, but {place} takes its "
                f'classes from {path}: {shown(names)}. Set classes="auto" in both, or the same names in both'
            )
    heads = set_num_classes(cfg.get("model") or {}, len(names), former if former is not None else len(usual))
    yield _sentence(names, path, heads)


def _is_left_over(place: str, dataset: Any, names: tuple[str, ...]) -> bool:
    """A test set that the config only inherited: of other categories. Testing will refuse it; training need not."""
    if not place.startswith("test_dataloader.") or own_classes(dataset) is not None:
        return False
    path = dataset_path(dataset, str(dataset["ann_file"]))
    return os.path.isfile(path) and tuple(category.get("name") for category in read_categories(path)) != names


def category_names(path: str) -> tuple[str, ...]:
    """Names of the categories of a file, in its order.

    Raises:
        ValueError: if it has none, or two have the same name or id.
    """
    categories = read_categories(path)
    names = [category.get("name") for category in categories]
    ids = [category.get("id") for category in categories]
    if not names:
        raise ValueError(f"{path} has no categories. Add them: a list of {{id, name}}")
    for what, values in (("name", names), ("id", ids)):
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(
                f"{path}: categories with the same {what}: {shown(twice)}; mmdet cannot tell them apart. "
                "Rename or merge them"
            )
    wrong = [name for name in names if not isinstance(name, str) or not name]
    if wrong:
        raise ValueError(f"{path}: a category's name must be a text, got {wrong[0]!r}")
    return tuple(map(str, names))


def _same_names(place: str, path: str, names: tuple[str, ...], other_place: str, other_path: str) -> None:
    others = category_names(other_path)
    if others == names:
        return
    lacking, more = [n for n in names if n not in others], [n for n in others if n not in names]
    what = "the same categories in another order" if not (lacking or more) else ""
    what = what or f"other categories: without {shown(lacking)}, with {shown(more)} in addition"
    raise ValueError(
        f"{other_place} reads {other_path}, which has {what}, than {path} of {place}. mmdet numbers classes by each "
        f"file's order, so they would not match: write the same list of categories into both files, {shown(names)}"
    )


def _metainfo(dataset: Any, names: tuple[str, ...], usual: Sequence[str]) -> dict[str, Any]:
    metainfo = dict(dataset.get("metainfo") or {})
    palette = metainfo.pop("palette", None)
    metainfo["classes"] = names
    if isinstance(palette, list | tuple) and len(palette) == len(names):
        metainfo["palette"] = palette
    elif len(names) > len(usual):  # the usual palette would be too short to draw them
        metainfo["palette"] = colours(len(names))
    return metainfo


def colours(number: int) -> list[tuple[int, int, int]]:
    """As many colours, ``(r, g, b)`` of 0 to 255, whose neighbours differ."""
    from colorsys import hsv_to_rgb

    return [
        tuple(round(255 * part) for part in hsv_to_rgb(index * _GOLDEN_ANGLE / 360 % 1, 0.65, 0.6 + index % 3 * 0.2))  # type: ignore[misc]
        for index in range(number)
    ]


def _infer_masks(cfg: Any, datasets: Sequence[tuple[str, Any, Any]]) -> Iterator[str]:
    asked = [(place, item, kind) for place, item, kind in datasets if own_classes(item) == AUTO]
    if not asked:
        return
    for place, _, kind in asked:
        full = getattr(kind, "METAINFO", {}).get("classes")
        if full:
            raise ValueError(
                f'{place}: classes="auto", but {kind.__name__} has {len(full)} classes of its own. For your own '
                "classes set type='BaseSegDataset', with img_suffix and seg_map_suffix as your files end"
            )
    if not _there(asked[0][1]):
        return
    names, source = mask_classes(*asked[0])
    for _, dataset, _ in asked:
        dataset["metainfo"] = {key: value for key, value in dataset["metainfo"].items() if key != "palette"}
        dataset["metainfo"]["classes"] = names
    for place, dataset, kind in datasets:
        if class_names(dataset, kind) != names and _there(dataset):
            raise ValueError(
                f"{place}.metainfo.classes={shown(class_names(dataset, kind))}, but {asked[0][0]} takes its classes "
                f'from {source}: {shown(names)}. Set classes="auto" in both, or the same names in both'
            )
    yield _sentence(names, source, set_num_classes(cfg.get("model") or {}, len(names), None))


def _sentence(names: Sequence[str], source: str, heads: Sequence[str]) -> str:
    changed = f"; num_classes={len(names)} in {', '.join(heads)}" if heads else ""
    return f"{len(names)} classes from {source}: {shown(names, 12)}{changed}"
