"""Dense linear: multinomial logistic regression from standardised patch tokens to their soft labels.

Minimises mean over tokens of sum_c -y_c log p_c, plus l2 / 2 * |W|^2, the bias left free: scikit-learn's
``LogisticRegression`` with C = 1 / (l2 * N), each token taken once for every class with weight y_c. L-BFGS with exact
gradients, in coordinates in which the penalised covariance of the tokens is the identity: fewer steps to the same
minimum.

Legend: N labelled tokens, D width, K classes that they show.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.probes.dense_features import DenseFeatures

_CHUNK = 16384  # tokens
_IN_MEMORY = 2**32  # bytes of standardised tokens; more are read anew in each step


@dataclass(frozen=True)
class LinearClassifier:
    """Tokens [..., D] → logits [..., K] of ``classes`` [K]."""

    weight: Tensor  # [K, D], of standardised tokens
    bias: Tensor  # [K]
    mean: Tensor  # [D]
    scale: Tensor  # [D]
    classes: NDArray
    num_steps: int

    def __call__(self, tokens: NDArray) -> Tensor:
        x = torch.from_numpy(np.asarray(tokens)).to(self.weight.device).float()
        return F.linear((x - self.mean) / self.scale, self.weight, self.bias)


class LogisticRegression:
    """Fits one penalty after another to N tokens, each from where the last one ended.

    Args:
        features: tokens and soft labels.
        rows: [N], numbers of the labelled tokens to fit to.
        device: where to compute.
    """

    @torch.no_grad()
    def __init__(self, features: DenseFeatures, rows: NDArray[np.int64], device: torch.device | str = "cpu") -> None:
        self.features, self.rows, self.device = features, rows, device
        self.classes = np.flatnonzero(features.soft_labels[rows].any(axis=0))
        self.mean, self.scale = torch.zeros((), device=device), torch.ones((), device=device)
        sums = [torch.stack([x.double().sum(0), x.double().square().sum(0)]) for x, _ in self._read()]
        mean, squares = torch.stack(sums).sum(0) / len(rows)
        deviation = (squares - mean.square()).clamp_min(0).sqrt()
        self.mean, self.scale = mean.float(), torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0).float()
        self._kept = list(self._read()) if 4 * len(rows) * len(mean) <= _IN_MEMORY else None
        frequencies = torch.stack([y.double().sum(0) for _, y in self._chunks()]).sum(0) / len(rows)
        self.curvature = (frequencies * (1 - frequencies)).mean().clamp_min(1e-3)  # of the loss without weights
        self.covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=device)
        with quick_products(device):
            for x, _ in self._chunks():
                self.covariance += F.linear(x.T, x.T) / len(rows)
        self.weight, self.bias = mean.new_zeros(len(self.classes), len(mean)), frequencies.log()

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in np.array_split(self.rows, -(-len(self.rows) // _CHUNK)):
            x = torch.from_numpy(self.features.tokens[rows]).to(self.device).float()
            y = torch.from_numpy(self.features.soft_labels[rows][:, self.classes]).to(self.device)
            yield (x - self.mean) / self.scale, y

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Standardised tokens [b, D] and soft labels [b, K]."""
        return self._read() if self._kept is None else iter(self._kept)

    def loss(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean cross-entropy at the present weights and bias, and its gradients, float64."""
        loss, of_weight, of_bias = (torch.zeros_like(x) for x in (self.bias[0], self.weight, self.bias))
        for x, y in self._chunks():
            log_p = F.linear(x, self.weight.float(), self.bias.float()).log_softmax(dim=1)
            excess = log_p.exp() - y
            loss -= (y * log_p).sum()
            of_weight += F.linear(excess.T, x.T)
            of_bias += excess.sum(dim=0)
        return loss / len(self.rows), of_weight / len(self.rows), of_bias / len(self.rows)

    @torch.no_grad()
    def fit(self, l2: float, tolerance: float = 1e-5, max_steps: int = 500) -> LinearClassifier:
        """Finds the minimum for a penalty ``l2`` > 0, up to a largest entry of the gradient, or so many steps."""
        eye = torch.eye(len(self.covariance), dtype=torch.float64, device=self.device)
        factor = torch.linalg.cholesky(self.curvature * self.covariance + l2 * eye)
        inverse, root = torch.linalg.solve_triangular(factor, eye, upper=False), self.curvature.sqrt()
        point = torch.cat([self.weight @ factor, self.bias[:, None] * root], dim=1)  # [K, D + 1]

        def evaluate() -> Tensor:
            self.weight, self.bias = point[:, :-1] @ inverse, point[:, -1] / root
            loss, of_weight, of_bias = self.loss()
            point.grad = torch.cat([(of_weight + l2 * self.weight) @ inverse.T, of_bias[:, None] / root], dim=1)
            return loss + 0.5 * l2 * self.weight.square().sum()

        search = torch.optim.LBFGS(
            [point], 1.0, max_steps, 2 * max_steps, tolerance, 0.0, history_size=20, line_search_fn="strong_wolfe"
        )
        with quick_products(self.device):
            search.step(evaluate)
        self.weight, self.bias = point[:, :-1] @ inverse, point[:, -1] / root
        steps = search.state[point]["n_iter"]
        return LinearClassifier(self.weight.float(), self.bias.float(), self.mean, self.scale, self.classes, steps)
