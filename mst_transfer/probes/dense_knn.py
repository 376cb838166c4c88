"""Dense k-NN: each patch takes the soft labels of the labelled patches that are most like it.

In-context scene understanding (Balazevic et al., NeurIPS 2023, section 3.1). The figures of ``open-hummingbird-eval``
with exact search, but that its ignored training pixels are of class 0, and here of none.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.probes.dense_features import DenseFeatures
from mst_transfer.runs.progress import Progress

_QUERIES, _KEYS, _BLOCK = 8192, 16384, 1024  # queries and keys in memory at once, queries of a product


@torch.no_grad()
def dense_knn(
    train: DenseFeatures,
    keys: NDArray[np.int64],
    val: DenseFeatures,
    k: int = 30,
    temperature: float = 0.02,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, Tensor]]:
    """Yields the index of each image of ``val`` and its class scores [h, w, C], which sum to 1.

    Exact, in chunks of queries and keys, these being the labelled tokens of ``train`` with the numbers ``keys`` [K].
    Where there are fewer than k, all of them count. The temperature is that of a softmax over cosines.
    """
    progress, done = Progress("dense k-NN: image", len(val.grids)), 0
    while done < len(val.grids):  # whole images with at most so many tokens, or one
        first = val.offsets[done]
        end = max(done + 1, int(np.searchsorted(val.offsets, first + _QUERIES, side="right")) - 1)
        queries = _unit(val.tokens[first : val.offsets[end]], device)
        cosines = queries.new_full((len(queries), k), -torch.inf)
        numbers = torch.zeros_like(cosines, dtype=torch.int64)
        for rows in np.array_split(keys, range(_KEYS, len(keys), _KEYS)):
            some, places = _unit(train.tokens[rows], device), torch.from_numpy(rows).to(device)
            for part in (slice(start, start + _BLOCK) for start in range(0, len(queries), _BLOCK)):
                with quick_products(device):
                    near, at = F.linear(queries[part], some).topk(min(k, len(rows)))
                cosines[part], order = torch.cat([cosines[part], near], dim=1).topk(k)
                numbers[part] = torch.cat([numbers[part], places[at]], dim=1).gather(1, order)
        weights = (cosines / temperature).softmax(dim=1)  # [Q, k]
        labels = torch.from_numpy(train.soft_labels[numbers.cpu().numpy()]).to(device)  # [Q, k, C]
        scores = torch.einsum("qk,qkc->qc", weights, labels)
        for image in range(done, end):
            mine = scores[val.offsets[image] - first : val.offsets[image + 1] - first]
            yield int(val.indices[image]), mine.unflatten(0, tuple(val.grids[image].tolist()))
        progress(done := end)


def _unit(tokens: NDArray, device: torch.device | str) -> Tensor:
    """float32 on a device, of length 1."""
    return F.normalize(torch.from_numpy(np.asarray(tokens)).to(device).float(), dim=1)
