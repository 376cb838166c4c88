"""Writes the accuracies that DINO's k-NN classifier gives on features that the test makes anew.

    python tests/golden/make_dino_knn.py --dino CHECKOUT

CHECKOUT is a folder with https://github.com/facebookresearch/dino at commit 7c446df.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

TARGET = Path(__file__).parent / "dino_knn.json"
SETTINGS = [(k, temperature) for k in (1, 5, 20, 200) for temperature in (0.07, 1.0)]


def clusters(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that overlap so much that neighbours and temperature matter: train [600, 16], val [500, 16], labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(7, 16, generator=generator)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 7, (count,), generator=generator)
        return centres[labels] + 2 * torch.randn(count, 16, generator=generator), labels

    (train, train_labels), (val, val_labels) = draw(600), draw(500)
    return train, train_labels, val, val_labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dino", type=Path, required=True)
    sys.path.insert(0, str(parser.parse_args().dino))
    import eval_knn

    results = []
    for seed in range(3):
        train, train_labels, val, val_labels = clusters(seed)
        train, val = F.normalize(train, dim=1), F.normalize(val, dim=1)
        for k, temperature in SETTINGS:
            top1, _ = eval_knn.knn_classifier(train, train_labels, val, val_labels, k, temperature, num_classes=7)
            results.append({"seed": seed, "k": k, "temperature": temperature, "top1": top1})
    TARGET.write_text(json.dumps({"commit": "7c446df", "results": results}, indent=1) + "\n")
    print(f"{len(results)} accuracies in {TARGET}")


if __name__ == "__main__":
    main()
