"""Checks a dataset in COCO's format: its classes, its records, its images.

mmdet numbers the categories in the order of the file and drops names that the file lacks, without a word: a
class that is missing or in another place shifts the names of all that follow. So all classes must be in the
file, in its order.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mst_transfer.configs.datasets import coco_base, numbers_by_file
from mst_transfer.datasets.coco_columns import CocoColumns, read_categories, read_columns, rows_of
from mst_transfer.preflight.coco_masks import check_masks
from mst_transfer.preflight.coco_records import Selection, Use, check_records, check_use, select
from mst_transfer.preflight.data_files import check_sizes, dataset_path, leaves_folder, missing_files
from mst_transfer.preflight.findings import Finding, SetSummary, shown


def check_coco(
    place: str, dataset: Mapping[str, Any], kind: Any, classes: Sequence[str], use: Use, may_be_empty: bool
) -> tuple[list[Finding], SetSummary | None]:
    """Checks one dataset in COCO's format.

    Args:
        kind: its class. One with rules of its own (LVIS, panoptic) has only its categories compared.
        may_be_empty: whether the file may be without instances, as those of images to be judged elsewhere.

    Returns:
        Findings, and what is in the file as far as it could be read.
    """
    if not dataset.get("ann_file"):
        return [], None
    path = dataset_path(dataset, str(dataset["ann_file"]))
    base = coco_base(kind)
    try:
        if kind.load_data_list is not base.load_data_list or kind.parse_data_info is not base.parse_data_info:
            names = _names(read_categories(path))
            return list(compare_classes(place, path, names, classes, ordered=numbers_by_file(kind))), None
        columns = read_columns(path)
    except ValueError as error:
        return [Finding(f"{place}: {error}")], None
    findings = list(compare_classes(place, path, _names(columns.categories), classes))
    records = list(check_records(columns))
    if not any(finding.stops for finding in [*findings, *records]):
        chosen = [one["id"] for one in columns.categories if not classes or one["name"] in classes]
        selection = select(columns, chosen, dataset.get("filter_cfg"), bool(dataset.get("test_mode")))
        records += check_use(columns, selection, use, len(classes))
        records += check_masks(columns, selection, use)
        findings += _check_content(place, columns, selection, classes, may_be_empty)
        summary = _summary(place, columns, selection, classes)
    else:
        summary = SetSummary(place, path, len(columns.image_ids), tuple(classes))
    findings += [Finding(f"{place}: {path}: {one.text}", one.stops) for one in records]
    findings += _check_images(place, columns, dataset, use.max_pixels)
    summary.notes = [finding.text.removeprefix(f"{place}: {path}: ") for finding in findings if not finding.stops]
    return findings, summary


def _names(categories: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Names of categories; one that is none, such as a list, as text, to be refused by the checks of records."""
    names = [category.get("name") for category in categories]
    return [name if isinstance(name, str) or name is None else repr(name) for name in names]


def compare_classes(
    place: str, path: str, names: Sequence[Any], classes: Sequence[str], *, ordered: bool = True
) -> Iterator[Finding]:
    """Compares the categories of a file with the classes of the config; see the head of this module."""
    if not classes:
        return
    auto = 'metainfo=dict(classes="auto") in every dataset, and num_classes will follow'
    absent = [name for name in classes if name not in names]
    if len(absent) == len(classes):
        yield Finding(
            f"{place}: none of the classes {shown(classes)} occurs in {path}, whose categories are "
            f"{shown(names)}. Set {auto}; or metainfo=dict(classes={_tuple(names)}) and num_classes="
            f"{len(names)} in the heads."
        )
    elif ordered and absent:
        also = [name for name in names if name in set(classes)]
        yield Finding(
            f"{place}: classes {shown(absent)} do not occur in {path}; mmdet would shift the names of those "
            f"behind them. Its categories are {shown(names)}, of which {len(also)} are classes of the config. To "
            f"train all {len(names)} of the file: {auto}. To train some: put them into metainfo.classes, in this order."
        )
    elif ordered:
        in_file_order = [name for name in names if name in set(classes)]
        if in_file_order != list(classes):
            yield Finding(
                f"{place}: mmdet numbers classes in the order of the file, so names would be mixed up. "
                f"Set metainfo=dict(classes={_tuple(in_file_order)}), the order in {path}."
            )


def _tuple(names: Sequence[Any]) -> str:
    return repr(tuple(names)) if len(names) <= 100 else f"({len(names)} names)"


def _check_content(
    place: str, columns: CocoColumns, selection: Selection, classes: Sequence[str], may_be_empty: bool
) -> Iterator[Finding]:
    num_instances = int(selection.instances.sum())
    if not len(columns.image_ids) or not (num_instances or may_be_empty):
        yield Finding(
            f"{place}: {columns.path} has {len(columns.image_ids)} images and {num_instances} instances of the "
            f"{len(classes)} classes: nothing to learn from. Is it the right file?"
        )
    elif not selection.images.any():
        reasons = "; ".join(f"{rows.sum()} {why}" for why, rows in selection.images_left_out.items() if rows.any())
        yield Finding(
            f"{place}: mmdet would leave out all {len(columns.image_ids)} images of {columns.path}: {reasons}. "
            "Change filter_cfg of the dataset"
        )


def _summary(place: str, columns: CocoColumns, selection: Selection, classes: Sequence[str]) -> SetSummary:
    names = list(classes) or _names(columns.categories)
    ids = {category["name"]: category["id"] for category in columns.categories}
    of_class = rows_of(columns.of_category, np.array([ids.get(name, -1) for name in names], np.int64))
    learned = selection.instances & ~columns.crowd & (of_class >= 0)
    counts = np.bincount(of_class[learned], minlength=len(names)).tolist()
    num_crowds = int((selection.instances & columns.crowd).sum())
    facts = [
        f"{int(selection.images.sum())} usable images, {int(learned.sum())} instances, {num_crowds} crowd regions, "
        f"{len(names)} classes"
    ]
    without = [name for name, count in zip(names, counts, strict=True) if not count]
    if without:
        facts.append(f"classes without an instance: {shown(without)}")
    return SetSummary(place, columns.path, len(columns.image_ids), tuple(names), counts, facts=facts)


def _check_images(place: str, columns: CocoColumns, dataset: Mapping[str, Any], max_pixels: int) -> Iterator[Finding]:
    folder = dataset_path(dataset, (dataset.get("data_prefix") or {}).get("img", ""))
    named = [index for index, name in enumerate(columns.file_names) if isinstance(name, str) and name]
    climbing = [columns.file_names[index] for index in named if leaves_folder(columns.file_names[index])]
    if climbing:
        yield Finding(
            f"{place}: {len(climbing)} of {len(named)} images of {columns.path} have a file_name that leads out of "
            f"{folder or 'the folder'}, e.g. {climbing[0]!r}: a file of unknown origin could name any file of this "
            "machine. Set data_prefix.img to a folder that holds all images, and write file_name relative to it"
        )
        return
    paths = [os.path.join(folder, columns.file_names[index]) for index in named]
    absent = set(missing_files(paths))
    if absent:
        first = next(path for path in paths if path in absent)
        yield Finding(
            f"{place}: {len(absent)} of {len(paths)} images of {columns.path} are not in {folder}, e.g. "
            f"{os.path.relpath(first, folder) if folder else first}. Correct data_prefix.img or complete the folder.",
            missing_file=True,
        )
    there = [(path, index) for path, index in zip(paths, named, strict=True) if path not in absent]
    sizes = [(float(width), float(height)) for width, height in columns.image_sizes[[index for _, index in there]]]
    for finding in check_sizes([path for path, _ in there], sizes, max_pixels):
        yield Finding(f"{place}: {columns.path}: {finding.text}", finding.stops)
