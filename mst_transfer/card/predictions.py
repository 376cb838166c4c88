"""What is in an image and what was found in it, for pictures."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Instances(NamedTuple):
    """Boxes [N, 4] as (x0, y0, x1, y1) in pixels of the file, masks [N, H, W], classes [N]; the truth has no scores."""

    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32] | None = None


class Prediction(NamedTuple):
    """One image by its file name, RGB [H, W, 3], what is in it and what was found: instances, or label maps [H, W]."""

    name: str
    image: NDArray[np.uint8]
    truth: Any
    found: Any


def answer_of(sample: Any, min_score: float) -> Any:
    """Instances of at least this score, or the label map, of a data sample of mmdet or mmseg."""
    if "pred_sem_seg" in sample:
        return sample.pred_sem_seg.data[0].cpu().numpy()
    found = sample.pred_instances
    found = found[found.scores >= min_score].cpu().numpy()
    return Instances(found.bboxes, found.masks > 0, found.labels, found.scores)


def spread(total: int, wanted: int) -> list[int]:
    """Indices of ``wanted`` of ``total`` images, evenly spaced: they are not chosen by their looks."""
    wanted = min(wanted, total)
    return [(2 * k + 1) * total // (2 * wanted) for k in range(wanted)]
