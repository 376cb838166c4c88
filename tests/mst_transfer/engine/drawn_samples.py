"""Data sets of random numbers, in a module that spawned processes can import."""

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset


class Draws(Dataset):
    """Samples of random numbers from every generator; it notes what was asked of it in a file."""

    metainfo = dict(classes=("a",))

    def __init__(self, count: int, notes: Path | None = None) -> None:
        self.count, self.notes, self.pipeline = count, notes, "first"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.notes is not None:
            with self.notes.open("a") as file:
                file.write(f"{index}\n")
        noise = np.zeros((1, 2), np.uint8)
        cv2.randu(noise, 0, 255)
        numbers = [index, random.random(), np.random.rand(), float(torch.rand(())), *map(float, noise.flat)]
        return dict(numbers=torch.tensor(numbers, dtype=torch.float64))


def collate(samples: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    return torch.stack([sample["numbers"] for sample in samples])
