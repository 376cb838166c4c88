"""Outcomes of one checkpoint and one seed on the validation images, and their figure under any draw of these images.

Shapes: n images, R draws, C classes, D detections, T = 10 thresholds of the IoU. Weights ``[R, n]`` are whole numbers,
how often each image is drawn: ones give the figure itself, others that of a set that holds each image so many times.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import hotcoco
import numpy as np
from numpy.typing import NDArray

from mst_transfer.evaluation.coco_backends import load_ground_truth, why_unsuited

_RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads off the precision
_HIT, _IGNORED = 1, 2
_AT_ONCE = 1 << 22  # numbers of a temporary array of MeanAP


def digest_of(image_names: Iterable[object]) -> str:
    """16 hexadecimal digits that stand for these images in this order."""
    return hashlib.sha256("\n".join(map(str, image_names)).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Measure:
    """What each of n images gave, ``outcomes`` ``[n, …]``; only measures with one ``digest_of`` are compared."""

    outcomes: NDArray
    digest: str = field(default="", kw_only=True)
    kind: ClassVar[str]

    @property
    def num_images(self) -> int:
        """n."""
        return len(self.outcomes)

    def class_figures(self, weights: NDArray) -> NDArray[np.float64]:
        """Figures ``[R, C]`` in per cent; NaN where a draw has nothing of a class."""
        raise NotImplementedError

    def figures(self, weights: NDArray) -> NDArray[np.float64]:
        """Mean ``[R]`` in per cent over the classes that a draw holds; 0 if it holds none."""
        values = self.class_figures(weights)
        held = ~np.isnan(values)
        return np.where(held, values, 0.0).sum(axis=1) / np.maximum(held.sum(axis=1), 1)

    def per_class(self) -> NDArray[np.float64]:
        """Figure ``[C]`` of each class on the images as they are."""
        return self.class_figures(np.ones((1, self.num_images), dtype=np.int64))[0]

    def only(self, kept: NDArray[np.bool_]) -> "Measure":
        """The outcome on those of the images alone."""
        return replace(self, outcomes=self.outcomes[kept], digest=digest_of((self.digest, kept.tobytes())))


class Accuracy(Measure):
    """Share of the images that are classified right; ``outcomes``: bool ``[n]``, whether each one is."""

    kind = "accuracy"

    def class_figures(self, weights: NDArray) -> NDArray[np.float64]:
        return 100.0 * (weights @ self.outcomes.astype(np.float64) / weights.sum(axis=1))[:, None]


class MeanIoU(Measure):
    """Intersection over union of all pixels of a set, its mean over the classes that have a true pixel in it.

    ``outcomes``: whole numbers ``[n, C, 3]``, the pixels of each image and class in both, predicted, and true.
    """

    kind = "mean_iou"

    def class_figures(self, weights: NDArray) -> NDArray[np.float64]:
        flat = self.outcomes.reshape(self.num_images, -1).astype(np.float64)  # exact up to 2^53 pixels
        both, predicted, true = np.moveaxis((weights @ flat).reshape(len(weights), -1, 3), 2, 0)
        return np.where(true > 0, 100.0 * both / np.maximum(predicted + true - both, 1), np.nan)


@dataclass(frozen=True, eq=False)
class MeanAP(Measure):
    """COCO's average precision (10 thresholds, all areas, 100 detections an image); ``mean_ap`` makes it.

    Which truth a detection hits depends on its own image alone: a draw only changes how often each one counts.
    ``outcomes``: whole numbers ``[n, C]``, instances that count.
    """

    category: NDArray  # whole numbers [D], ascending
    image: NDArray  # [D], of a category by falling score
    state: NDArray  # uint8 [D, T], what a detection is: 0 a miss, 1 a hit, 2 ignored
    kind = "mean_ap"

    def only(self, kept: NDArray[np.bool_]) -> "Measure":
        rows, number = kept[self.image], (kept.cumsum() - 1).astype(self.image.dtype)
        parts: dict[str, Any] = dict(
            image=number[self.image[rows]], category=self.category[rows], state=self.state[rows]
        )
        return replace(super().only(kept), **parts)

    def class_figures(self, weights: NDArray) -> NDArray[np.float64]:
        step = max(1, _AT_ONCE // max(1, int(np.bincount(self.category, minlength=1).max())))
        parts = [np.ascontiguousarray(weights[i : i + step].T, np.int32) for i in range(0, len(weights), step)]
        classes = range(self.outcomes.shape[1])
        return np.concatenate([np.stack([self._precision(c, part) for c in classes], axis=1) for part in parts])

    def _precision(self, category: int, times: NDArray[np.int32]) -> NDArray[np.float64]:
        """Average precision ``[R]`` in per cent of one class, its images drawn so many times ``[n, R]``."""
        rows = slice(*np.searchsorted(self.category, (category, category + 1)))
        state, counts = self.state[rows], times[self.image[rows]]  # [d, T], [d, R]
        instances, everything = self.outcomes[:, category] @ times, counts.cumsum(axis=0, dtype=np.int32)
        most = int(counts[(state == _HIT).any(axis=1)].sum(axis=0).max(initial=0))
        recall = np.arange(most + 1)[:, None] / np.maximum(instances, 1)
        passed, total = np.searchsorted(_RECALLS, recall, side="right"), np.zeros(times.shape[1])
        for column in state.T:
            hit, ignored = np.flatnonzero(column == _HIT), column == _IGNORED
            found, seen = counts[hit].cumsum(axis=0, dtype=np.int32), everything[hit]
            if ignored.any():
                seen = seen - np.where(ignored[:, None], counts, 0).cumsum(axis=0, dtype=np.int32)[hit]
            precision = found / (seen + np.spacing(1))
            best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]  # at this recall or more
            total += (best * np.diff(np.take_along_axis(passed, found, axis=0), axis=0, prepend=0)).sum(axis=0)
        return np.where(instances > 0, 100.0 * total / (len(_RECALLS) * state.shape[1]), np.nan)


def mean_ap(ground_truth: dict[str, Any], results: Sequence[Mapping[str, Any]], iou_type: str) -> MeanAP:
    """Matches the content of a COCO result file to that of an annotation file, image by image, by hotcoco.

    Images keep the latter's order; classes go by ascending id. ``iou_type`` is ``bbox`` or ``segm``.

    Raises:
        ValueError: no image has an instance, an id is not an integer, or a result is of an unknown image or class.
    """
    if reason := why_unsuited("hotcoco", ground_truth):
        raise ValueError(f"COCO annotations: {reason}")
    images = {image["id"]: number for number, image in enumerate(ground_truth["images"])}
    classes = {key: number for number, key in enumerate(sorted(c["id"] for c in ground_truth["categories"]))}
    for name, known in (("image_id", images), ("category_id", classes)):
        if strange := {result[name] for result in results} - set(known):
            raise ValueError(f"results have {name} {min(strange)}, the annotations have not: give files of one set")
    truth: Any = load_ground_truth("hotcoco", SimpleNamespace(dataset=ground_truth))
    run: Any = hotcoco.COCOeval(truth, truth.load_res([dict(result) for result in results]), iou_type)
    run.params.area_rng, run.params.area_rng_lbl, run.params.max_dets = [[0.0, 1e10]], ["all"], [100]
    run.evaluate()
    truths = np.zeros((len(images), len(classes)), dtype=np.int32)
    columns: list[NDArray] = [np.zeros((0, 3 + len(run.params.iou_thrs)))]  # category, image, score, states
    for entry in filter(None, run.eval_imgs):
        image, category, scores = images[entry["image_id"]], classes[entry["category_id"]], entry["dtScores"]
        truths[image, category] = np.sum(entry["gtInDenominator"])
        state = np.where(entry["dtIgnore"], _IGNORED, entry["dtMatched"]).T
        columns.append(np.column_stack([np.full((len(scores), 2), (category, image)), scores, state]))
    if not truths.any():
        raise ValueError(f"the annotations of {len(images)} images have no instance that counts: nothing to measure")
    table = np.concatenate(columns)
    table = table[np.lexsort((-table[:, 2], table[:, 0]))]  # stable, as COCO's own order of ties
    category, image = table[:, :2].T.astype(np.int32)
    return MeanAP(truths, category, image, table[:, 3:].astype(np.uint8), digest=digest_of(images))
