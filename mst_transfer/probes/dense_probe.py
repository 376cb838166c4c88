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
from mst_transfer.probes.dense_knn import dense_knn
from mst_transfer.probes.dense_linear import LogisticRegression
from mst_transfer.probes.labelled_images import label_subset
from mst_transfer.probes.linear import split_held_out

PROTOCOLS = ("dense_knn", "dense_linear")
L2S = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # from strong to weak
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
    keep_maps: Collection[int] = (),
    **extraction: Any,
) -> Iterator[DenseResult]:
    """Extracts tokens once, and yields each result as soon as it is there.

    Args:
        frozen, train, val: the backbone, and images of the same classes.
        protocols: of ``PROTOCOLS``.
        labels: of how many training images: numbers, or shares as ``label_subset`` takes them.
        seeds: of those, and of the held-out images that choose the penalty.
        num_blocks: whose tokens dense linear sees; dense k-NN sees the last block's.
        keep_maps: validation images whose predicted maps are wanted.
        **extraction: options of ``extract_tokens``.

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
        images = np.searchsorted(needed, np.sort(subset))
        rows = memory.select(images)
        if not len(rows):
            raise ValueError(f"labels = {share!r}, seed {seed}: no pixel of these {len(images)} images has a class")
        for protocol in protocols:
            chosen: dict[str, Any] = {"images": len(images), "tokens": len(rows)}
            if protocol == "dense_linear":
                problem, more = _choose(train, memory, images, seed, frozen.device)
                outputs: Iterator = ((image, problem.scores(queries.image(image))) for image in range(len(val)))
                (counts, maps), chosen = val.compare(outputs, problem.classes, keep_maps), chosen | more
            else:
                if (keys := rows.tobytes()) not in known:
                    answers = dense_knn(last[0], rows, last[1], device=frozen.device)
                    known[keys] = val.compare(answers, np.arange(val.num_classes), keep_maps)
                counts, maps = known[keys]
            yield DenseResult(protocol, share, seed, mean_iou(counts), counts, chosen, maps)


def _choose(
    train: DenseImages, memory: DenseFeatures, images: NDArray[np.int64], seed: int, device: torch.device
) -> tuple[LogisticRegression, dict[str, Any]]:
    """Fits these images of the memory, with the penalty by which some of them had the best mIoU when it was fitted to
    the others; without images to hold out, with the one in the middle."""
    l2, held_out = L2S[len(L2S) // 2], dict[float, float]()
    kept, held = (images[part.numpy()] for part in split_held_out(len(images), max(_HELD_OUT, 1 / len(images)), seed))
    if len(memory.select(kept)) and len(memory.select(held)):
        problem = LogisticRegression(memory, memory.select(kept), device)
        for strength in L2S:
            problem.fit(strength, tolerance=1e-3)
            outputs = ((int(memory.indices[image]), problem.scores(memory.image(image))) for image in held)
            held_out[strength] = mean_iou(train.compare(outputs, problem.classes)[0])
        l2 = max(held_out, key=lambda strength: held_out[strength])
    problem = LogisticRegression(memory, memory.select(images), device)
    return problem, {"l2": l2, "held_out": held_out, "steps": problem.fit(l2)}
