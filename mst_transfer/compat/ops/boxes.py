"""Non-maximum suppression."""

import torch
from torch import Tensor

from mst_transfer.compat.ops.common import full_precision, torchvision_ops


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices [K] of the boxes to keep, best first.

    Args:
        bboxes: [N, 4] as x1, y1, x2, y2.
        scores: [N].
        iou_threshold: A box is dropped if its IoU with a better kept one is greater.
        offset: 0, or 1 for boxes whose width is x2 − x1 + 1.
    """
    boxes = full_precision(bboxes)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    return torchvision_ops().nms(boxes, scores.to(boxes.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., 2017): lowers the scores of overlapping boxes instead of dropping them.

    Args:
        boxes: [N, 4] as x1, y1, x2, y2.
        scores: [N].
        dets: [N, 5], its first K rows are filled with the kept boxes and their new scores.
        iou_threshold: From which IoU on methods 0 and 1 act.
        sigma: Width of method 2.
        min_score: Boxes whose score falls below are dropped.
        method: 0 drop, 1 linear, 2 Gaussian.
        offset: 0, or 1 for boxes whose width is x2 − x1 + 1.

    Returns:
        Indices [K] of the kept boxes in the order of selection.
    """
    remaining = torch.arange(len(boxes))
    scores = scores.clone()
    areas = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    kept: list[int] = []
    while len(remaining):
        position = int(scores[remaining].argmax())
        best = int(remaining[position])
        dets[len(kept), :4], dets[len(kept), 4] = boxes[best], scores[best]
        kept.append(best)
        remaining = torch.cat([remaining[:position], remaining[position + 1 :]])
        top_left = torch.maximum(boxes[best, :2], boxes[remaining, :2])
        bottom_right = torch.minimum(boxes[best, 2:], boxes[remaining, 2:])
        overlap = (bottom_right - top_left + offset).clamp(min=0).prod(dim=1)
        iou = overlap / (areas[best] + areas[remaining] - overlap)
        scores[remaining] *= _soft_weight(iou, iou_threshold, sigma, method)
        remaining = remaining[scores[remaining] >= min_score]
    return torch.tensor(kept, dtype=torch.long)


def _soft_weight(iou: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    if method == 2:
        return torch.exp(-(iou**2) / sigma)
    reduced = 1 - iou if method == 1 else torch.zeros_like(iou)
    return torch.where(iou >= iou_threshold, reduced, torch.ones_like(iou))
