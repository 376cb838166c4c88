"""Weighted k-nearest-neighbour classification of frozen features (Wu et al., 2018; the protocol of DINO)."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_rank, get_world_size
from torch import Tensor


def knn_votes(similarity: Tensor, labels: Tensor, temperature: float, num_classes: int) -> Tensor:
    """Votes [n, C] of neighbours, their cosines and classes (int64) [n, k].

    Each votes with exp((cosine - the query's largest) / temperature), which does not overflow.
    """
    votes = similarity.new_zeros(len(similarity), num_classes)
    similarity = similarity - similarity.amax(dim=1, keepdim=True)
    return votes.scatter_add_(1, labels, (similarity / temperature).exp())


def check_k(ks: Sequence[int], num_images: int, name: str = "k") -> None:
    """Raises a ValueError for no neighbours, or more than there are training images."""
    for k in ks:
        if not 1 <= k <= num_images:
            raise ValueError(f"{name}={k} must lie in 1 … {num_images}, the number of training images")


@torch.no_grad()
def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    labels: Tensor,
    ks: Sequence[int],
    temperature: float = 0.07,
    chunk: int = 256,
    device: torch.device | str = "cpu",
) -> dict[int, float]:
    """Top-1 accuracy in per cent for each k; several processes share the queries.

    Args:
        train_features, train_labels: [M, D], of any length: they are normalised here; int64 [M].
        features, labels: of the queries, [n, D] and int64 [n].
        ks: numbers of neighbours.
        temperature: of the votes; 0.07 in DINO.
        chunk: queries at once; memory grows with chunk x M.

    Raises:
        ValueError: k is not in 1 … M, or the temperature is not positive.
    """
    check_k(ks, len(train_features))
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive")
    num_classes = int(torch.maximum(train_labels.max(), labels.max())) + 1
    mine = slice(get_rank(), None, get_world_size())
    train_labels, truth = train_labels.to(device), labels[mine].to(device)
    nearest = nearest_images(train_features, features[mine], max(ks), chunk, device)
    correct = torch.zeros(len(ks), dtype=torch.int64)
    for (similarity, neighbours), expected in zip(nearest, truth.split(chunk), strict=True):
        classes = train_labels[neighbours]
        for row, value in enumerate(ks):
            votes = knn_votes(similarity[:, :value], classes[:, :value], temperature, num_classes)
            correct[row] += (votes.argmax(dim=1) == expected).sum().cpu()
    all_reduce(correct)
    return {value: 100 * hits / len(labels) for value, hits in zip(ks, correct.tolist(), strict=True)}


@torch.no_grad()
def nearest_images(
    train_features: Tensor, features: Tensor, k: int, chunk: int = 256, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cosines and indices [chunk, k] of the nearest training images, the nearest first, chunk by chunk."""
    train_features = F.normalize(train_features.to(device), dim=1)
    for part in F.normalize(features.to(device), dim=1).split(chunk):
        yield (part @ train_features.T).topk(k)
