"""Measures what a checkpoint's frozen features are worth on a task, and keeps the outcomes image by image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.job_pictures import save_label_maps, save_maps, shown_images
from mst_transfer.card.measures import Accuracy, MeanIoU, Measure, digest_of
from mst_transfer.card.plan import DENSE, Options
from mst_transfer.card.task_data import TaskData
from mst_transfer.card.tasks import CLASSIFICATION, Task
from mst_transfer.probes.dense_images import DenseImages
from mst_transfer.probes.dense_probe import dense_probe
from mst_transfer.probes.features import extract_features, num_feature_blocks
from mst_transfer.probes.knn import knn_votes, nearest_images
from mst_transfer.probes.label_subset import label_subset
from mst_transfer.probes.labelled_images import open_pair
from mst_transfer.probes.linear import LinearProbes, cached_batches, split_held_out, train_linear

Outcome = tuple[str, str, str, int, Measure]  # metric, protocol, labels, seed, what came out
KNN: dict[str, Any] = dict(k=20, temperature=0.07)  # DINO's
LINEAR: dict[str, Any] = dict(lrs=(0.001, 0.01, 0.1, 1.0), epochs=100, batch_size=256, held_out=0.1)


def probe_outcomes(
    checkpoint: Checkpoint,
    task: Task,
    data: TaskData,
    options: Options,
    seeds: tuple[int, ...],
    multiple: int,
    folder: Path,
    pictures: Path,
) -> Iterator[Outcome]:
    """Extracts features once and runs every probe on every number of labels and seed.

    Args:
        checkpoint, task, data, options: what to measure.
        seeds: of label subsets; of ``random`` the first is that of its weights.
        multiple: see :func:`mst_transfer.card.sizes`.
        folder: of this job, for features that lie on the disk while it runs.
        pictures: folder of this job's pictures.
    """
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    frozen = checkpoint.load_frozen(seeds[0], device)
    if task.kind == CLASSIFICATION:
        yield from _image_outcomes(frozen, task, options, seeds, device)
        return
    train, val = (dense_images(data, part, multiple, options.max_side) for part in ("train", "val"))
    asked: dict[str, Any] = dict(protocols=DENSE, labels=options.labels, seeds=seeds, num_blocks=options.num_blocks)
    shown = shown_images(data)
    for result in dense_probe(frozen, train, val, keep_maps=shown, **asked, store_path=folder, dtype=options.dtype):
        measure = MeanIoU(result.counts, digest=data.val_digest())
        if result.seed == options.seeds[0]:
            title = f"{task.name}: {result.protocol}, {result.labels} labels"
            place = pictures / f"{result.protocol}-{result.labels}".replace("%", "pc")
            save_label_maps(place, title, data, checkpoint, result.maps, f"Seed {result.seed}.")
        yield "mIoU", result.protocol, str(result.labels), result.seed, measure
    if seeds[0] == options.seeds[0]:
        save_maps(pictures, task.name, data, checkpoint, frozen)


def dense_images(data: TaskData, part: str, multiple: int, max_side: int) -> DenseImages:
    """The training or validation images of a task for dense probes."""
    images = getattr(data, part)
    pairs = [(one.path, lambda index: images[index].label_map()) for one in images]
    return DenseImages(pairs, len(data.classes), multiple=multiple, max_side=max_side)


def _image_outcomes(
    frozen: Any, task: Task, options: Options, seeds: tuple[int, ...], device: Any
) -> Iterator[Outcome]:
    """DINO's k-NN and linear protocols, the latter on central views."""
    train, val = open_pair(Path(task.root) / "train", Path(task.root) / "val", frozen.img_size)
    blocks = min(4, num_feature_blocks(frozen.model))
    parts = [extract_features(frozen.features(blocks), images, device=device, title=name) for images, name in
             ((train, f"{task.name} train:"), (val, f"{task.name} val:"))]  # fmt: skip
    (features, labels), (queries, truth) = parts
    digest = digest_of(val.paths)
    width, num_classes = features.shape[1] // blocks, len(train.classes)
    for seed in seeds:
        for amount in options.labels:
            chosen = torch.tensor(label_subset(len(features), amount, seed))
            some, theirs = features[chosen], labels[chosen]
            votes = [
                knn_votes(similarity, theirs[neighbours], KNN["temperature"], num_classes)
                for similarity, neighbours in nearest_images(
                    some[:, -width:], queries[:, -width:], min(KNN["k"], len(some))
                )
            ]
            correct = torch.cat(votes).argmax(dim=1) == truth
            yield "top-1", "knn", amount, seed, Accuracy(correct.numpy(), digest=digest)
            predicted = _linear_predictions(some, theirs, queries, truth, num_classes, seed)
            yield "top-1", "linear", amount, seed, Accuracy((predicted == truth).numpy(), digest=digest)


def _linear_predictions(features: Any, labels: Any, queries: Any, truth: Any, num_classes: int, seed: int) -> Any:
    kept, held_out = split_held_out(len(features), LINEAR["held_out"], seed)
    lrs = LINEAR["lrs"] if len(held_out) else LINEAR["lrs"][-2:-1]
    batch = min(LINEAR["batch_size"], len(kept))
    probes = LinearProbes(features.shape[1], num_classes, lrs, batch, LINEAR["epochs"], seed)
    held = (features[held_out], labels[held_out]) if len(held_out) else None
    batches = cached_batches(features[kept], labels[kept], batch, seed)
    result = train_linear(batches, probes, (queries, truth), held)
    return probes.logits(queries)[list(lrs).index(result.lr)].argmax(dim=-1).detach()
