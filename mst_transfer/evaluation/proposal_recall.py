"""Average recall of class-agnostic proposals by one-to-one matching of the best overlaps (``proposal_fast``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def average_recalls(
    truths: Sequence[np.ndarray],
    proposals: Sequence[np.ndarray],
    proposal_nums: Sequence[int],
    iou_thresholds: np.ndarray,
) -> list[float]:
    """Share of the boxes that are found, averaged over the thresholds, for each number of proposals.

    In each image the pair of box and proposal with the largest overlap is matched first, then the largest of those
    that are left, and so on; a box is found if its pair overlaps by the threshold. Overlaps are float32, as in
    ``mmdet.evaluation.functional.eval_recalls``, which gives the same numbers.

    Args:
        truths: Boxes of each image, ``[n, 4]``, x1, y1, x2, y2.
        proposals: Proposals of each image, ``[m, 4]``, the best first.
        proposal_nums: How many of an image's proposals count.
        iou_thresholds: ``[T]``.

    Returns:
        One number each; NaN if there is no box.
    """
    overlaps = [_overlaps(*pair) for pair in zip(truths, proposals, strict=True)]
    recalls = []
    for number in proposal_nums:
        matched = [_matched_overlaps(image[:, :number]) for image in overlaps]
        best = np.concatenate(matched).astype(np.float32) if matched else np.zeros(0, dtype=np.float32)
        if not best.size:
            recalls.append(float("nan"))
            continue
        found = (best >= np.asarray(iou_thresholds)[:, None]).sum(axis=1)
        recalls.append(float(np.mean(found / best.size)))
    return recalls


def _overlaps(truths: np.ndarray, proposals: np.ndarray) -> np.ndarray:
    """IoU of boxes ``[n, 4]`` and ``[m, 4]`` as ``[n, m]``, float32."""
    a, b = truths.astype(np.float32)[:, None], proposals.astype(np.float32)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    joint = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    return shared / np.maximum(joint, np.float32(1e-6))


def _matched_overlaps(overlaps: np.ndarray) -> np.ndarray:
    """Overlaps of the pairs that are matched, largest first, ``[n]``; 0 if no proposal is given, -1 if none is left."""
    overlaps = overlaps.copy()
    matched = np.zeros(len(overlaps))
    if not overlaps.size:
        return matched
    for index in range(len(overlaps)):
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        matched[index] = overlaps[row, column]
        overlaps[row] = -1
        overlaps[:, column] = -1
    return matched
