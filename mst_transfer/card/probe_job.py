"""Measures what a checkpoint's frozen features are worth on a task, and keeps the outcomes image by image."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mst_transfer.card.job_pictures import save_answers, save_maps, shown_images
from mst_transfer.card.measures import Accuracy, MeanIoU, Measure, digest_of
from mst_transfer.card.outcomes import Key
from mst_transfer.card.plan import Job, Plan, job_folder
from mst_transfer.card.task_data import Labelled, TaskData
from mst_transfer.card.tasks import CLASSIFICATION
from mst_transfer.probes.dense_images import DenseImages
from mst_transfer.probes.dense_probe import dense_probe
from mst_transfer.probes.features import extract_features, num_feature_blocks
from mst_transfer.probes.knn import knn_votes, nearest_images
from mst_transfer.probes.labelled_images import label_subset, open_pair
from mst_transfer.probes.linear import LinearProbes, cached_batches, split_held_out, train_linear

KNN: dict[str, Any] = dict(k=20, temperature=0.07)  # DINO's
LINEAR: dict[str, Any] = dict(lrs=(0.001, 0.01, 0.1, 1.0), epochs=100, batch_size=256, held_out=0.1)


def probe_outcomes(plan: Plan, job: Job, data: TaskData, folder: Path) -> Iterator[tuple[Key, Measure]]:
    """Extracts features once, and runs every probe on every number of labels and seed.

    Features lie on the disk while it runs. The first seed is that of the weights of ``random``, too.
    """
    checkpoint, task, options = plan.checkpoint(job.checkpoint), plan.task(job.task), plan.options
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frozen = checkpoint.load_frozen(job.seeds[0], device)
    if task.kind == CLASSIFICATION:
        frozen.img_size = plan.image_size
        yield from _image_outcomes(frozen, job, Path(task.root), device)
        return
    out, pictures = job_folder(folder, job), folder / "pictures" / job.id
    train, val = (_dense_images(plan, data, images) for images in (data.train, data.val))
    asked: dict[str, Any] = dict(labels=options.labels, seeds=job.seeds, num_blocks=options.num_blocks)
    kept: dict[str, Any] = dict(keep_maps=shown_images(data), store_path=out, dtype=options.dtype)
    for result in dense_probe(frozen, train, val, **asked, **kept):
        labels = str(result.labels)
        if result.seed == options.seeds[0]:
            title = f"{task.name}: {result.protocol}, {labels} labels"
            place = pictures / f"{result.protocol}-{labels}".replace("%", "pc")
            shown = {data.val[index]: predicted for index, predicted in result.maps.items()}
            save_answers(place, title, checkpoint.name, data.classes, shown, f"Seed {result.seed}.")
        key = Key(task.name, "mIoU", result.protocol, labels, checkpoint.name, result.seed)
        yield key, MeanIoU(result.counts, digest=data.val_digest())
    if job.seeds[0] == options.seeds[0]:
        save_maps(pictures, task.name, data, checkpoint, frozen)


def _dense_images(plan: Plan, data: TaskData, images: Sequence[Labelled]) -> DenseImages:
    pairs = [(one.path, lambda index: images[index].label_map()) for one in images]
    return DenseImages(pairs, len(data.classes), multiple=plan.multiple, max_side=plan.options.max_side)


def _image_outcomes(frozen: Any, job: Job, root: Path, device: torch.device) -> Iterator[tuple[Key, Measure]]:
    """DINO's k-NN and linear protocols, the latter on central views."""
    train, val = open_pair(root / "train", root / "val", frozen.img_size)
    blocks = min(4, num_feature_blocks(frozen.model))
    extract = partial(extract_features, frozen.features(blocks), device=device)
    features, classes = extract(train, title=f"{job.task} train:")
    queries, truth = extract(val, title=f"{job.task} val:")
    digest = digest_of(val.paths)
    width, num_classes = features.shape[1] // blocks, len(train.classes)
    for seed in job.seeds:
        for labels in job.labels:
            chosen = torch.tensor(label_subset(len(features), labels, seed))
            some, theirs = features[chosen], classes[chosen]
            nearest = nearest_images(some[:, -width:], queries[:, -width:], min(KNN["k"], len(some)))
            votes = [knn_votes(near, theirs[which], KNN["temperature"], num_classes) for near, which in nearest]
            predicted = {
                "knn": torch.cat(votes).argmax(dim=1),
                "linear": _linear_predictions(some, theirs, queries, truth, num_classes, seed),
            }
            for protocol, found in predicted.items():
                key = Key(job.task, "top-1", protocol, labels, job.checkpoint, seed)
                yield key, Accuracy((found == truth).numpy(), digest=digest)


def _linear_predictions(features: Any, labels: Any, queries: Any, truth: Any, num_classes: int, seed: int) -> Any:
    kept, held_out = split_held_out(len(features), LINEAR["held_out"], seed)
    lrs = LINEAR["lrs"] if len(held_out) else LINEAR["lrs"][-2:-1]
    batch = min(LINEAR["batch_size"], len(kept))
    probes = LinearProbes(features.shape[1], num_classes, lrs, batch, LINEAR["epochs"], seed)
    held = (features[held_out], labels[held_out]) if len(held_out) else None
    batches = cached_batches(features[kept], labels[kept], batch, seed)
    result = train_linear(batches, probes, (queries, truth), held)
    return probes.logits(queries)[list(lrs).index(result.lr)].argmax(dim=-1).detach()
