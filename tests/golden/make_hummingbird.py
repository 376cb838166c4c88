"""Writes what the published code of dense k-NN gives on small features, with exact search.

    python tests/golden/make_hummingbird.py --open-hummingbird-eval CHECKOUT            # write hummingbird.safetensors
    python tests/golden/make_hummingbird.py --open-hummingbird-eval CHECKOUT --check    # compute again and compare

CHECKOUT is a folder with https://github.com/vpariza/open-hummingbird-eval at commit 5e79da2. Its two searches need a
GPU (faiss) or approximate (scann), and its data sets need Lightning: torch's exact search and nothing take their
places. Memory, attention, up-sampling and confusion matrix are its own.
"""

import importlib
import sys
from types import ModuleType
from unittest import mock

import torch
from golden_files import command_line, write
from torch import Tensor, nn

COMMIT = "5e79da2"
TRAIN, VAL, GRID, PATCH, WIDTH, CLASSES, NEIGHBOURS = 6, 4, 6, 4, 8, 4, 30


class ExactSearch:
    """The interface of its searches."""

    def __init__(self, feature_memory: Tensor, n_neighbors: int, **options: object) -> None:
        self.memory, self.k = feature_memory, n_neighbors

    def find_nearest_neighbors(self, queries: Tensor) -> tuple:
        values, rows = (queries @ self.memory.T).topk(self.k)
        return rows.numpy(), values.numpy()


class Stored(nn.Module):
    """A backbone whose tokens are known: the first pixel of an image says which."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens, self.eval_spatial_resolution, self.d_model = tokens, GRID, WIDTH

    def forward_features(self, images: Tensor) -> tuple[Tensor, None]:
        return self.tokens[images[:, 0, 0, 0].long()], None


def inputs() -> tuple[Tensor, Tensor]:
    """Tokens [n, GRID², WIDTH] about one centre a class, and label maps of blobs, in part 255 for validation."""
    generator = torch.Generator().manual_seed(0)
    side, images = GRID * PATCH, TRAIN + VAL
    waves = torch.randn(images, CLASSES, 4, 4, generator=generator)
    labels = nn.functional.interpolate(waves, (side, side), mode="bicubic").argmax(dim=1)  # [n, side, side]
    shares = nn.functional.one_hot(labels, CLASSES).float().unflatten(1, (GRID, PATCH)).unflatten(3, (GRID, PATCH))
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    tokens = shares.mean(dim=(2, 4)).flatten(1, 2) @ centres
    tokens = (tokens + 0.7 * torch.randn(tokens.shape, generator=generator)) * 3
    labels[TRAIN:][torch.rand(VAL, side, side, generator=generator) < 0.1] = 255
    return tokens, labels


def main() -> int:
    """Writes or checks; returns the exit status."""
    args = command_line(__doc__, "vpariza/open-hummingbird-eval", check=True).parse_args()
    sys.path.insert(0, str(args.open_hummingbird_eval))
    search, data = ModuleType("hbird.nn.search_faiss"), ModuleType("hbird.data")
    search.NearestNeighborSearchFaiss, data.get_dataset = ExactSearch, None  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, {"hbird.nn.search_faiss": search, "hbird.data": data}):
        code = importlib.import_module("hbird.hbird_eval")
        tokens, labels = inputs()
        numbers = torch.arange(len(tokens)).float().view(-1, 1, 1, 1).expand(-1, 3, *labels.shape[1:])
        pairs = [(numbers[i : i + 2], labels[i : i + 2, None] / 255) for i in range(0, len(tokens), 2)]
        metrics = []
        real = code.PredsmIoU
        with mock.patch.object(code, "PredsmIoU", lambda *a, **k: metrics.append(real(*a, **k)) or metrics[-1]):
            evaluation = code.HbirdEvaluation(
                Stored(tokens), pairs[: TRAIN // 2], CLASSES, NEIGHBOURS, nn_method="faiss"
            )
            miou, details = evaluation.evaluate(pairs[TRAIN // 2 :], GRID, return_knn_details=True)
    tensors = {
        "tokens": tokens,
        "labels": labels.to(torch.uint8),
        "soft_labels": evaluation.label_memory,
        "scores": details["knns_ca_labels"],
        "confusion": metrics[0]._conf_mat,  # [true, predicted]
        "miou": torch.tensor(miou, dtype=torch.float64),
    }
    return int(not write("hummingbird.safetensors", tensors, check=args.check, commit=COMMIT, k=str(NEIGHBOURS)))


if __name__ == "__main__":
    sys.exit(main())
