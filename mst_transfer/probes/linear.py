"""A linear classifier on frozen features, trained as DINO trains it.

SGD with momentum 0.9, no weight decay, learning rate x (batch / 256), a cosine over the epochs, weights drawn from
N(0, 0.01²). Classifiers for several learning rates train together on the same features; which of them counts is
decided on a held-out part of the training images, never on the validation images.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mst_transfer.runs.counter_random import derive_key

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class LinearResult:
    """Accuracies in per cent."""

    lr: float  # the learning rate chosen, for a batch of 256
    top1: float  # on the validation images
    held_out: dict[float, float]  # by learning rate, on held-out training images; empty: nothing to choose
    top1_by_lr: dict[float, float]  # by learning rate, on the validation images


def split_held_out(num_images: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to train on and those held out, a random ``share`` of all."""
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    held_out = round(num_images * share)
    return order[held_out:].sort().values, order[:held_out].sort().values


def cached_batches(features: Tensor, labels: Tensor, batch_size: int, seed: int) -> Batches:
    """Batches of features [n, D] that are computed once; the order follows from (seed, epoch)."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(derive_key(seed, epoch) >> 1)
        for indices in torch.randperm(len(features), generator=generator).split(batch_size):
            yield features[indices], labels[indices]

    return batches


class LinearProbes:
    """Linear classifiers, one a learning rate, that share their input.

    Args:
        in_dim, num_classes: D and C.
        lrs: learning rates for a batch of 256.
        effective_batch: images a step, over all processes.
        epochs: length of the cosine.
        seed: of the initial weights.
        sharded: whether each process feeds other images, so that gradients are added up.
    """

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        lrs: Sequence[float],
        effective_batch: int,
        epochs: int,
        seed: int = 0,
        sharded: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.lrs, self.sharded = list(lrs), sharded
        self.rates = torch.tensor(self.lrs, device=device)
        self.scale, self.epochs = effective_batch / 256, epochs
        start = torch.empty(num_classes, in_dim).normal_(0, 0.01, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(start.repeat(len(lrs), 1, 1).to(device))  # [R, C, D]
        self.bias = nn.Parameter(torch.zeros(len(lrs), num_classes, device=device))
        self.momentum = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]

    def logits(self, features: Tensor) -> Tensor:
        """[n, D] → [R, n, C], for each of the R learning rates."""
        flat = features.to(self.weight.device) @ self.weight.flatten(0, 1).T  # [n, R * C]
        return flat.unflatten(1, self.bias.shape).transpose(0, 1) + self.bias[:, None]

    def step(self, features: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """One step of SGD for every classifier; their mean losses [R] before it, over the images of all processes.

        Processes may have different numbers of images, or none: each image counts the same.
        """
        logits = self.logits(features)
        labels = labels.to(logits.device)
        count = logits.new_full((), len(labels))
        if self.sharded:
            all_reduce(count)
        losses = torch.stack([F.cross_entropy(one, labels, reduction="sum") for one in logits]) / count
        gradients = torch.autograd.grad(losses.sum(), [self.weight, self.bias])
        losses = losses.detach()
        if self.sharded:
            for summand in (*gradients, losses):
                all_reduce(summand)
        cosine = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))  # constant within an epoch
        rates = self.rates * (self.scale * cosine)
        with torch.no_grad():
            for parameter, gradient, momentum in zip((self.weight, self.bias), gradients, self.momentum, strict=True):
                momentum.mul_(0.9).add_(gradient)
                parameter.sub_(rates.view(-1, *[1] * (parameter.ndim - 1)) * momentum)
        return losses

    @torch.no_grad()
    def scores(self, features: Tensor, labels: Tensor) -> dict[float, tuple[float, float]]:
        """Top-1 in per cent and mean cross-entropy in nats, infinite where it is no number, for each learning rate."""
        hits, losses = torch.zeros(len(self.lrs), dtype=torch.int64), torch.zeros(len(self.lrs), dtype=torch.float64)
        for part, truth in zip(features.split(4096), labels.split(4096), strict=True):
            logits, truth = self.logits(part), truth.to(self.weight.device)
            hits += (logits.argmax(dim=-1) == truth).sum(dim=1).cpu()
            losses += torch.stack([F.cross_entropy(one, truth, reduction="sum") for one in logits]).cpu()
        means = (losses / len(labels)).nan_to_num(nan=math.inf, posinf=math.inf).tolist()
        return {lr: (100 * int(hit) / len(labels), mean) for lr, hit, mean in zip(self.lrs, hits, means, strict=True)}


def train_linear(
    batches: Batches,
    probes: LinearProbes,
    val: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor] | None = None,
    after_epoch: Callable[[int, Tensor], None] = lambda epoch, losses: None,
) -> LinearResult:
    """Train all classifiers and choose one: of the best held-out accuracy, among equals of the lowest cross-entropy.

    Args:
        batches: epoch → batches of features [b, D] and labels [b].
        val: features [n, D] and labels [n] to report on.
        held_out: those to choose the learning rate by; needed when there are several.
        after_epoch: called with the epoch and the mean losses [R] of its last step.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    assert held_out is not None or len(probes.lrs) == 1
    for epoch in range(probes.epochs):
        losses = torch.zeros(len(probes.lrs))
        for features, labels in batches(epoch):
            losses = probes.step(features, labels, epoch)
        if not bool(losses.isfinite().any()):
            raise FloatingPointError(
                f"linear classifiers: no loss is finite in epoch {epoch + 1} for learning rates {probes.lrs}; "
                "choose lower ones"
            )
        after_epoch(epoch, losses)
    by_lr = {lr: top1 for lr, (top1, _) in probes.scores(*val).items()}
    judged = probes.scores(*held_out) if held_out is not None else {}
    best = max(judged, key=lambda lr: (judged[lr][0], -judged[lr][1])) if judged else probes.lrs[0]
    chosen = {lr: top1 for lr, (top1, _) in judged.items()}
    return LinearResult(best, by_lr[best], chosen, by_lr)
