"""Checks that evaluators read the files of their datasets."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mst_transfer.configs.datasets import all_datasets, items
from mst_transfer.preflight.data_files import dataset_path
from mst_transfer.preflight.findings import Finding, note

MMDET_METRICS = ("CocoMetric", "mmdet.CocoMetric")


def evaluators(cfg: Any, loader: str) -> list[tuple[str, Any]]:
    """The metrics of a loader's evaluator, with their places in the config."""
    metrics = items(cfg, loader.replace("_dataloader", "_evaluator"))
    return [(place, metric) for place, metric in metrics if isinstance(metric, Mapping)]


def evaluates_masks(cfg: Any, loader: str) -> bool:
    """Whether a metric of the loader's evaluator scores instance masks."""
    kinds = [metric.get("metric") or () for _, metric in evaluators(cfg, loader)]
    return any("segm" in ([kind] if isinstance(kind, str) else kind) for kind in kinds)


def check_evaluator(cfg: Any, loader: str) -> Iterator[Finding]:
    """An evaluator's own annotation file, and what it takes for no class, must be those of its loader's dataset."""
    datasets = [dataset for _, dataset in all_datasets(cfg, [loader])]
    reads = [dataset_path(item, str(item["ann_file"])) for item in datasets if item.get("ann_file")]
    ignored = {int(item["ignore_index"]) for item in datasets if item.get("ignore_index") is not None}
    for place, metric in evaluators(cfg, loader):
        counted = metric.get("ignore_index", 255)
        if str(metric.get("type")).endswith("IoUMetric") and (others := ignored - {counted}):
            yield Finding(
                f"{place}.ignore_index={counted}, but the datasets of {loader} have {min(others)}: pixels of no class "
                f"would count as errors. Set {place}.ignore_index={min(others)}"
            )
        path = metric.get("ann_file")
        if not isinstance(path, str) or not path or "://" in path or metric.get("backend_args"):
            continue
        option = f"{place}.ann_file"
        if reads and os.path.abspath(path) not in map(os.path.abspath, reads):
            yield Finding(
                f"{option}={path} is not the file that {loader}.dataset reads, {', '.join(reads)}: the scores would "
                f"be of other images. Set {option}={reads[0]}, or correct data_root and ann_file of the dataset"
            )
        elif not os.path.isfile(path):
            yield Finding(
                f"{option}={path} does not exist; {loader}.dataset names {', '.join(reads) or 'no annotation file'}. "
                f"Set {option} to the annotation file of the dataset"
            )


def check_indices(cfg: Any, place: str, dataset: Mapping[str, Any], num_images: int) -> Iterator[Finding]:
    """Says that ``indices`` leave out images; mmdet's metric would count those of its file as missed."""
    indices = dataset.get("indices")
    if isinstance(indices, int):
        used = len(range(num_images)[:indices] if indices >= 0 else range(num_images)[indices:])
    else:
        used = num_images if indices is None else len(indices)
    if used == num_images:
        return
    text = f"indices={indices if isinstance(indices, int) else '[…]'}: {used} of the {num_images} images are used"
    scored = [(at, metric) for at, metric in evaluators(cfg, place.partition(".")[0]) if metric]
    theirs = [at for at, metric in scored if metric.get("ann_file") and metric.get("type") in MMDET_METRICS]
    if theirs:
        yield Finding(
            f"{place}.{text}, but {theirs[0]}, mmdet's CocoMetric, counts all others of its ann_file as missed. Set "
            f"{theirs[0]}.type='mst_transfer.CocoMetric', which evaluates those that are used"
        )
    else:
        yield note(f"{text}, and the figures are of these" if scored else text)
