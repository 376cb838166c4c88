"""Finds all that is wrong with the data of a run before its first step, and says the way out.

Only what is needed is read, so that large sets take no longer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mst_transfer.configs.datasets import (
    LOADERS,
    class_names,
    coco_base,
    dataset_class,
    is_segmentation,
    unique_datasets,
)
from mst_transfer.files.image_files import MAX_PIXELS
from mst_transfer.preflight.coco import check_coco
from mst_transfer.preflight.coco_records import Use
from mst_transfer.preflight.data_files import absent_paths, missing_data
from mst_transfer.preflight.evaluators import check_evaluator, check_indices, evaluates_masks, evaluators
from mst_transfer.preflight.findings import Finding, SetSummary, raise_if_any
from mst_transfer.preflight.num_classes import check_heads
from mst_transfer.preflight.segmentation import check_masks
from mst_transfer.preflight.segmentation_batches import check_batches


def check_datasets(cfg: Any, loaders: Sequence[str] = LOADERS) -> list[SetSummary]:
    """Checks folders, classes, annotations, images and masks of a config, its heads and its evaluators.

    Datasets of other kinds than mmdet's COCO and mmseg's, and those on remote storage, are passed over.

    The test set alone may be without instances.

    Returns:
        What is in each dataset that was checked.

    Raises:
        FileNotFoundError: if files are missing and nothing else is wrong.
        ValueError: if anything else is wrong. One message names all that was found.
    """
    findings, summaries = inspect_datasets(cfg, loaders)
    raise_if_any(findings)
    return summaries


def inspect_datasets(cfg: Any, loaders: Sequence[str] = LOADERS) -> tuple[list[Finding], list[SetSummary]]:
    """As ``check_datasets``, but returns what it finds."""
    scope = str(cfg.get("default_scope") or "mmengine")
    absent: dict[str, tuple[str, list[str]]] = {}
    findings: list[Finding] = []
    summaries, numbered = [], dict[str, tuple[str, ...]]()
    for place, dataset in unique_datasets(cfg, loaders):
        absent[place] = str(dataset.get("data_root") or ""), absent_paths(dataset)
        if dataset.get("backend_args") or absent[place][1]:
            continue
        kind = dataset_class(dataset, scope)
        found, summary = _inspect(cfg, place, dataset, kind)
        numbered[place] = tuple(class_names(dataset, kind) or ())
        findings += [*found, *_moved(numbered)]
        if summary is not None:
            summaries.append(summary)
            left_out = list(check_indices(cfg, place, dataset, summary.num_images))
            findings += left_out
            summary.notes += [finding.text for finding in left_out if not finding.stops]
    for loader in loaders:
        if not any(paths for place, (_, paths) in absent.items() if place.startswith(f"{loader}.")):
            findings += check_evaluator(cfg, loader)
            findings += check_batches(cfg, loader, _max_pixels(cfg))
    return [*missing_data(absent), *dict.fromkeys(findings)], summaries


def _moved(numbered: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """A class that the last data set numbers otherwise than the first: its figures would be another one's."""
    (first, theirs), (place, ours) = [*numbered.items()][0], [*numbered.items()][-1]
    for number, name in enumerate(ours):
        if name in theirs and theirs.index(name) != number:
            yield Finding(
                f"{place}: {name!r} is class {number}, and class {theirs.index(name)} in {first}: a head would be "
                "trained on one and judged on another. Give both the same order: of categories in the COCO files, of "
                "metainfo.classes, or of the lines of classes.txt"
            )
            return


def _inspect(cfg: Any, place: str, dataset: Mapping[str, Any], kind: Any) -> tuple[list[Finding], SetSummary | None]:
    """One dataset whose files are there: their content, and its classes against the heads."""
    model = cfg.get("model") or {}
    classes = class_names(dataset, kind)
    findings: list[Finding] = []
    summary = None
    if coco_base(kind) is not None:
        use, may_be_empty = _use(cfg, place, dataset), place.startswith("test_dataloader.")
        findings, summary = check_coco(place, dataset, kind, classes, use, may_be_empty)
    elif is_segmentation(kind):
        findings, summary = check_masks(place, dataset, kind, classes, model, _max_pixels(cfg))
    if classes:
        findings = [*findings, *check_heads(model, len(classes), place)]
    return findings, summary


def _use(cfg: Any, place: str, dataset: Mapping[str, Any]) -> Use:
    loader = place.partition(".")[0]
    with_mask = any(isinstance(step, Mapping) and step.get("with_mask") for step in dataset.get("pipeline") or ())
    scores = any(metric.get("ann_file") for _, metric in evaluators(cfg, loader))
    options = cfg.get("image_checks") or {}
    limits = {name: options[name] for name in ("max_pixels", "max_aspect_ratio") if name in options}
    return Use(with_mask, scores, scores and evaluates_masks(cfg, loader), **limits)


def _max_pixels(cfg: Any) -> int:
    return (cfg.get("image_checks") or {}).get("max_pixels", MAX_PIXELS)
