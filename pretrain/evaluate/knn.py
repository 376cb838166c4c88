"""Weighted k-nearest-neighbour classification of frozen features (Wu et al., 2018; the protocol of DINO)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def knn_votes(
    train_features: Tensor, train_labels: Tensor, features: Tensor, k: int, temperature: float, num_classes: int
) -> Tensor:
    """Sum over the k nearest training images of exp(cosine / temperature), for each class.

    Args:
        train_features: [M, D], of unit length.
        train_labels: int64 [M].
        features: [n, D], of unit length.
        k: neighbours.
        temperature: 0.07 in DINO.
        num_classes: C.

    Returns:
        [n, C].
    """
    similarity, neighbours = (features @ train_features.T).topk(k)
    votes = similarity.new_zeros(len(features), num_classes)
    return votes.scatter_add_(1, train_labels[neighbours], (similarity / temperature).exp())


@torch.no_grad()
def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    labels: Tensor,
    k: int | Sequence[int] = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> dict[int, float]:
    """Top-1 accuracy in per cent for each k.

    Args:
        train_features: [M, D], any length: they are normalised here.
        train_labels: int64 [M].
        features: [n, D].
        labels: int64 [n].
        k: neighbours, one number or several.
        temperature: of the votes.
        chunk: queries at once; memory grows with chunk x M.

    Raises:
        ValueError: k is not in 1 … M, or the temperature is not positive.
    """
    ks = [k] if isinstance(k, int) else list(k)
    for value in ks:
        if not 1 <= value <= len(train_features):
            raise ValueError(f"k={value} must lie in 1 … {len(train_features)}, the number of training images")
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive")
    num_classes = int(torch.maximum(train_labels.max(), labels.max())) + 1
    train_features, features = F.normalize(train_features, dim=1), F.normalize(features, dim=1)
    correct = dict.fromkeys(ks, 0)
    for part, truth in zip(features.split(chunk), labels.split(chunk), strict=True):
        for value in ks:
            votes = knn_votes(train_features, train_labels, part, value, temperature, num_classes)
            correct[value] += int((votes.argmax(dim=1) == truth).sum())
    return {value: 100 * hits / len(labels) for value, hits in correct.items()}
