"""What segmentation figures are made of, kept image by image, so that images can be drawn again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray
from torch import Tensor

from mst_transfer.registry import METRICS


def class_counts(predicted: Tensor, truth: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """int64 [C, 3] of two label maps [H, W]: pixels of each class in both, in the prediction, in the truth.

    Ignored pixels of the truth count nowhere.
    """
    kept = truth != ignore_index
    predicted, truth = predicted[kept].long(), truth[kept].long()
    columns = [predicted[predicted == truth], predicted, truth]
    return torch.stack([torch.bincount(column, minlength=num_classes)[:num_classes] for column in columns], dim=1)


@METRICS.register_module()
class ImageCounts(BaseMetric):
    """Writes the counts [n, C, 3] of a segmentor's validation images, in the order of the data set.

    Args:
        out: the ``.npz`` file, replaced at each validation.
    """

    def __init__(self, out: str, **kwargs: Any) -> None:
        super().__init__(prefix="image_counts", **kwargs)
        self.out = out

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Counts a batch's pixels."""
        num_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            predicted, truth = (sample[name]["data"].squeeze().cpu() for name in ("pred_sem_seg", "gt_sem_seg"))
            self.results.append(class_counts(predicted, truth, num_classes).numpy())

    def compute_metrics(self, results: list[NDArray[np.int64]]) -> dict[str, float]:
        """Writes the file; its figures are other metrics' to tell."""
        np.savez_compressed(self.out, counts=np.stack(results))
        return {}
