"""Classes and numbers of classes from the data, where a config leaves them open.

A config leaves them open with ``metainfo=dict(classes="auto")`` in one of its datasets, or, in COCO's format, by
saying nothing while no category of the file has the name of a COCO class.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
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
from mst_transfer.preflight.coco_records import category_faults
from mst_transfer.preflight.data_files import absent_paths, dataset_path, list_paths
from mst_transfer.preflight.findings import shown
from mst_transfer.preflight.num_classes import set_num_classes
from mst_transfer.preflight.segmentation_masks import IGNORED, count_values, list_pairs, option
from mst_transfer.runs.progress import Progress

NAMES_FILE = "classes.txt"
MAX_MASKS = 5000  # all are read: a rare class may be in one mask only


def infer_classes(cfg: Any, former: int | None = None) -> list[str]:
    """Sets ``metainfo.classes`` of the datasets and ``num_classes`` of the heads, in place, where they are open.

    mmdet numbers classes in the order of the file, so that is the order taken; files of one run must agree. Data
    that are not there are left to the preflight checks.

    The heads may have had ``former`` classes; None: as many as the dataset's class, 80 for COCO.

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
    return bool(list_paths(dataset)) and not absent_paths(dataset)


def _annotations(dataset: Any) -> str:
    return dataset_path(dataset, str(dataset["ann_file"]))


def _infer_coco(cfg: Any, datasets: Sequence[tuple[str, Any, Any]], former: int | None) -> Iterator[str]:
    readable = [entry for entry in datasets if _there(entry[1])]
    if not readable:
        return
    place, dataset, kind = readable[0]
    path, usual = _annotations(dataset), tuple(kind.METAINFO.get("classes") or ())
    if not _is_open(path, usual, [own_classes(item) for _, item, _ in datasets]):
        return
    names = category_names(path)
    for other_place, other, _ in readable[1:]:
        if own_classes(other) in (None, AUTO) and not _is_left_over(other_place, other, names):
            _check_same_names(place, path, names, other_place, _annotations(other))
    for other_place, other, other_kind in datasets:
        own = own_classes(other)
        if own in (None, AUTO) and not _is_left_over(other_place, other, names):
            other["metainfo"] = _metainfo(other, names, usual)
        elif own is not None:
            _check_named(other_place, class_names(other, other_kind), place, path, names)
    heads = set_num_classes(cfg.get("model") or {}, len(names), former if former is not None else len(usual))
    yield _sentence(names, path, heads)


def _is_open(path: str, usual: Sequence[str], own: Sequence[Any]) -> bool:
    """Whether datasets whose ``metainfo.classes`` are ``own`` leave their classes to the file."""
    if AUTO in own or any(classes is not None for classes in own):
        return AUTO in own
    try:
        found = {str(category.get("name")) for category in read_categories(path)}
    except ValueError:  # said by the preflight checks, with everything else
        return False
    return bool(found) and not found & set(usual)


def _is_left_over(place: str, dataset: Any, names: tuple[str, ...]) -> bool:
    """A test set that the config only inherited: of other categories. Testing will refuse it; training need not."""
    if not place.startswith("test_dataloader.") or own_classes(dataset) is not None:
        return False
    path = _annotations(dataset)
    return os.path.isfile(path) and tuple(category.get("name") for category in read_categories(path)) != names


def category_names(path: str) -> tuple[str, ...]:
    """Names of the categories of a file, in its order.

    Raises:
        ValueError: if it has none, or two have the same name or id.
    """
    categories = read_categories(path)
    for fault in category_faults(categories):
        raise ValueError(f"{path}: {fault}")
    if not categories:
        raise ValueError(f"{path} has no categories. Add them: a list of {{id, name}}")
    return tuple(category["name"] for category in categories)


def _check_named(place: str, own: Sequence[str], source_place: str, source: str, names: Sequence[str]) -> None:
    if tuple(own) != tuple(names):
        raise ValueError(
            f"{place}.metainfo.classes={shown(own)}, but {source_place} takes its classes from {source}: "
            f'{shown(names)}. Set classes="auto" in both, or the same names in both'
        )


def _check_same_names(place: str, path: str, names: tuple[str, ...], other_place: str, other_path: str) -> None:
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
        from mmdet.visualization.palette import get_palette

        metainfo["palette"] = [tuple(map(int, colour)) for colour in get_palette("random", len(names))]
    return metainfo


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
        if _there(dataset):
            _check_named(place, class_names(dataset, kind), asked[0][0], source, names)
    yield _sentence(names, source, set_num_classes(cfg.get("model") or {}, len(names), None))


def _sentence(names: Sequence[str], source: str, heads: Sequence[str]) -> str:
    changed = f"; num_classes={len(names)} in {', '.join(heads)}" if heads else ""
    return f"{len(names)} classes from {source}: {shown(names, 12)}{changed}"


def mask_classes(place: str, dataset: Any, kind: Any) -> tuple[tuple[str, ...], str]:
    """Names of the classes of a dataset of mmseg, and where they come from.

    ``classes.txt`` in the data root has one name a line. Without it the masks must hold every number from 0 (from 1
    with ``reduce_zero_label``) to the last class; the names are then ``class 0``, ``class 1``, …

    Raises:
        ValueError: if the file names none or one twice, there are too many masks, or their values have gaps.
    """
    file = Path(dataset_path(dataset, NAMES_FILE))
    if file.is_file():
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            wrong = f"names {shown(twice)} more than once" if twice else "names no class"
            raise ValueError(f"{file} {wrong}. Write one name a line, in the order of the values in the masks")
        return tuple(names), str(file)
    first = 1 if option(dataset, kind, "reduce_zero_label") else 0
    advice = f"Write {file}: one name a line, the first for value {first}"
    masks = [mask for _, mask in list_pairs(place, dataset, kind) if os.path.isfile(mask)]
    if len(masks) > MAX_MASKS:
        raise ValueError(f'{place}: classes="auto" would have to read {len(masks)} masks for the classes. {advice}')
    values: set[int] = set()
    progress = Progress(f"reading masks of {place} for their classes:", len(masks))
    for number, mask in enumerate(masks):
        values |= set(count_values(mask)[0])
        progress(number)
    found = sorted(values - {int(dataset.get("ignore_index", IGNORED)), IGNORED} - set(range(first)))
    if found != list(range(first, first + len(found))) or len(found) < 2:
        hint = " Black-and-white masks must hold 0 and 1 instead of 0 and 255." if values == {0, 255} else ""
        raise ValueError(
            f'{place}: classes="auto" needs masks that hold every number from {first} to the last class; they hold '
            f"{shown(sorted(values), 40)}.{hint} {advice}"
        )
    source = f"the values of {len(masks)} masks below {os.path.commonpath([os.path.dirname(mask) for mask in masks])}"
    return tuple(f"class {value - first}" for value in found), source
