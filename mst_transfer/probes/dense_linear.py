"""Dense linear: multinomial logistic regression from standardised patch tokens to their soft labels.

Minimises mean over tokens of sum_c -y_c log p_c, plus l2 / 2 * |W|^2, the bias left free: scikit-learn's
``LogisticRegression`` with C = 1 / (l2 * N), each of N tokens taken once for every class with weight y_c. L-BFGS with
exact gradients, in coordinates in which the penalised covariance of the tokens is the identity: the same minimum in
fewer steps.
"""

from collections.abc import Callable, Iterator
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.probes.dense_features import DenseFeatures

_CHUNK = 16384  # tokens
_IN_MEMORY = 2**32  # bytes of standardised tokens; more are read anew in each step
_DOUBLE = 2**21  # numbers up to which float64 is used: float32's rounding is as large as the last steps of few tokens


class LogisticRegression:
    """Fits one penalty after another to labelled tokens, each from where the last one ended.

    ``rows`` are their numbers [N] among those of ``features``. Attributes: ``classes`` [K], those that they show;
    ``weight`` [K, D] and ``bias`` [K], of standardised tokens, float64.
    """

    @torch.no_grad()
    def __init__(self, features: DenseFeatures, rows: NDArray[np.int64], device: torch.device | str = "cpu") -> None:
        self.features, self.rows, self.device = features, rows, device
        self.classes = np.flatnonzero(features.soft_labels[rows].any(axis=0))
        self._kept: list[tuple[Tensor, Tensor]] | None = None
        self.dtype = torch.float64 if len(rows) * features.tokens.shape[1] <= _DOUBLE else torch.float32
        self.mean, self.scale = torch.zeros((), device=device), torch.ones((), device=device)
        mean = self._mean(lambda x, y: x.double().sum(0))
        deviation = self._mean(lambda x, y: (x.double() - mean).square().sum(0)).sqrt()
        deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
        self.mean, self.scale = mean.to(self.dtype), deviation.to(self.dtype)
        self._kept = list(self._chunks()) if 4 * len(rows) * len(mean) <= _IN_MEMORY else None
        with quick_products(device):
            self.covariance = self._mean(lambda x, y: F.linear(x.T, x.T).double())
        frequencies = self._mean(lambda x, y: y.double().sum(0))
        self.curvature = (frequencies * (1 - frequencies)).mean().clamp_min(1e-3)  # of the loss without weights
        self.weight, self.bias = mean.new_zeros(len(self.classes), len(mean)), frequencies.log()

    def _mean(self, total: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Mean over tokens, from the total of each chunk."""
        return reduce(torch.add, (total(x, y) for x, y in self._chunks())) / len(self.rows)

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Standardised tokens [b, D] and soft labels [b, K]."""
        if self._kept is not None:
            yield from self._kept
            return
        for rows in np.array_split(self.rows, range(_CHUNK, len(self.rows), _CHUNK)):
            x = torch.from_numpy(self.features.tokens[rows]).to(self.device, self.dtype)
            y = torch.from_numpy(self.features.soft_labels[rows][:, self.classes]).to(self.device, self.dtype)
            yield (x - self.mean) / self.scale, y

    @torch.no_grad()
    def fit(self, l2: float, tolerance: float = 1e-4, max_steps: int = 500) -> int:
        """Finds the minimum for a penalty ``l2`` > 0, up to a largest entry of the gradient; the steps that it took."""
        eye = torch.eye(len(self.covariance), dtype=torch.float64, device=self.device)
        factor = torch.linalg.cholesky(self.curvature * self.covariance + l2 * eye)
        inverse, root = torch.linalg.solve_triangular(factor, eye, upper=False), self.curvature.sqrt()
        point = torch.cat([self.weight @ factor, self.bias[:, None] * root], dim=1)  # [K, D + 1]

        def evaluate() -> Tensor:
            self.weight, self.bias = point[:, :-1] @ inverse, point[:, -1] / root
            loss, of_weight, of_bias = self.weight.new_zeros(()), torch.zeros_like(self.weight), 0 * self.bias
            for x, y in self._chunks():
                log_p = F.linear(x, self.weight.to(x), self.bias.to(x)).log_softmax(dim=1)
                excess = log_p.exp() - y
                loss -= (y * log_p).sum(dtype=torch.float64) / len(self.rows)
                of_weight += F.linear(excess.T, x.T) / len(self.rows)
                of_bias += excess.sum(dim=0) / len(self.rows)
            point.grad = torch.cat([(of_weight + l2 * self.weight) @ inverse.T, of_bias[:, None] / root], dim=1)
            return loss + 0.5 * l2 * self.weight.square().sum()

        search = torch.optim.LBFGS(
            [point], 1.0, max_steps, 2 * max_steps, tolerance, 1e-9, history_size=20, line_search_fn="strong_wolfe"
        )
        with quick_products(self.device):
            search.step(evaluate)
        self.weight, self.bias = point[:, :-1] @ inverse, point[:, -1] / root
        return search.state[point]["n_iter"]

    def scores(self, tokens: NDArray) -> Tensor:
        """Logits [..., K] of tokens [..., D]."""
        x = torch.from_numpy(np.asarray(tokens)).to(self.device, self.dtype)
        return F.linear((x - self.mean) / self.scale, self.weight.to(x), self.bias.to(x))
