"""What a frozen backbone's patch tokens are worth for semantic segmentation: dense k-NN and dense linear."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mst_transfer.probes.backbones import FrozenBackbone
from mst_transfer.probes.dense_features import DenseFeatures, extract_tokens
from mst_transfer.probes.dense_images import DenseImages, LabelMap, mean_iou
from mst_transfer.probes.dense_knn import cap_keys, dense_knn
from mst_transfer.probes.dense_linear import LinearClassifier, LogisticRegression
from mst_transfer.probes.label_subset import label_subset
from mst_transfer.probes.linear import split_held_out

PROTOCOLS = ("dense_knn", "dense_linear")
L2S = (1e-1, 1e-2, 1e-3, 1e-4)  # from strong to weak
_HELD_OUT = 0.2


@dataclass(frozen=True)
class DenseResult:
    """The figure of one protocol with one subset of labels."""

    protocol: str
    labels: int | str
    seed: int
    miou: float  # in per cent, of all validation images together
    counts: NDArray[np.int64]  # [n, C, 3], of each image and class: pixels in the intersection, predicted, true
    chosen: dict[str, Any]  # number of images and tokens; the penalty, and what it was chosen by
    maps: dict[int, LabelMap]  # of the validation images asked for, predicted


def dense_probe(
    frozen: FrozenBackbone,
    train: DenseImages,
    val: DenseImages,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    labels: Sequence[int | str] = ("100%",),
    seeds: Sequence[int] = (0,),
    num_blocks: int = 1,
    max_keys: int | None = None,
    keep_maps: Collection[int] = (),
    **extraction: Any,
) -> Iterator[DenseResult]:
    """Extracts tokens once, and yields each result as soon as it is there.

    Args:
        frozen: the backbone.
        train, val: images of the same classes.
        protocols: of :data:`PROTOCOLS`.
        labels: of how many training images, see :func:`mst_transfer.probes.label_subset.label_subset`.
        seeds: of those, of the held-out images that choose the penalty, and of the cap on keys.
        num_blocks: whose tokens dense linear sees; dense k-NN sees the last block's.
        max_keys: of dense k-NN, drawn among all; None: all.
        keep_maps: validation images whose predicted maps are wanted.
        **extraction: options of :func:`mst_transfer.probes.dense_features.extract_tokens`.

    Raises:
        ValueError: an option, an image or a label map; or the images of a subset, or of ``val``, show no class.
    """
    if unknown := set(protocols) - set(PROTOCOLS):
        raise ValueError(f"protocol {min(unknown)!r} is not known: choose of {', '.join(PROTOCOLS)}")
    if train.num_classes != val.num_classes:
        raise ValueError(f"train has {train.num_classes} classes, val {val.num_classes}: both need the same")
    subsets = {(seed, share): label_subset(len(train), share, seed) for seed in seeds for share in labels}
    needed = np.unique(np.concatenate([*subsets.values()]))
    memory = extract_tokens(frozen, train, needed.tolist(), num_blocks, title="train:", **extraction)
    queries = extract_tokens(frozen, val, range(len(val)), num_blocks, title="val:", **extraction)
    if not queries.soft_labels.any():
        raise ValueError("no pixel of the validation images has a class")
    last = [replace(x, tokens=x.tokens[:, -frozen.model.num_features :]) for x in (memory, queries)]
    known: dict[bytes, tuple] = {}  # all labels are the same keys for each seed
    for (seed, share), subset in subsets.items():
        images = np.searchsorted(needed, subset)
        if not len(memory.select(images)):
            raise ValueError(f"labels = {share!r}, seed {seed}: no pixel of these {len(images)} images has a class")
        for protocol in protocols:
            if protocol == "dense_knn":
                keys = cap_keys(np.sort(memory.select(images)), max_keys, seed)
                if (key := keys.tobytes()) not in known:
                    outputs = dense_knn(last[0], keys, last[1], device=frozen.device)
                    known[key] = val.compare(outputs, np.arange(val.num_classes), keep_maps)
                (counts, maps), chosen = known[key], {"tokens": len(keys)}
            else:
                classifier, chosen = _choose(train, memory, images, seed, frozen.device)
                outputs = ((image, classifier(queries.image(image))) for image in range(len(val)))
                counts, maps = val.compare(outputs, classifier.classes, keep_maps)
            miou = mean_iou(counts)
            yield DenseResult(protocol, share, seed, miou, counts, {"images": len(images), **chosen}, maps)


def _choose(
    train: DenseImages, memory: DenseFeatures, images: NDArray[np.int64], seed: int, device: torch.device
) -> tuple[LinearClassifier, dict[str, Any]]:
    """A classifier fitted to these images of the memory, with the penalty by which the rest of them had the best mIoU
    when it was fitted to most of them; without images to hold out, with the one in the middle."""
    l2, held_out = L2S[len(L2S) // 2], dict[float, float]()
    kept, held = (images[part.numpy()] for part in split_held_out(len(images), max(_HELD_OUT, 1 / len(images)), seed))
    if len(memory.select(kept)) and len(memory.select(held)):
        problem = LogisticRegression(memory, memory.select(kept), device)
        for strength in L2S:
            classifier = problem.fit(strength, 1e-4)
            outputs = ((int(memory.indices[image]), classifier(memory.image(image))) for image in held)
            held_out[strength] = mean_iou(train.compare(outputs, classifier.classes)[0])
        l2 = max(held_out, key=lambda strength: held_out[strength])
    rows = memory.select(images)
    classifier = LogisticRegression(memory, rows, device).fit(l2)
    return classifier, {"tokens": len(rows), "l2": l2, "steps": classifier.num_steps, "held_out": held_out}
