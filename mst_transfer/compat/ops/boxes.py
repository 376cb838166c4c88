"""Boxes: non-maximum suppression, and RoIAlign, forward and backward.

Shapes: N boxes or RoIs, B images, C channels, H × W a feature map, h × w an output window.
"""

from typing import Any

import torch
from torch import Tensor

from mst_transfer.compat.ops.common import OpNotAvailableError, advice, full_precision, torchvision_ops


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


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **options: Any
) -> None:
    """RoIAlign with average pooling.

    Args:
        input: [B, C, H, W].
        rois: [N, 5] as image index, x1, y1, x2, y2.
        output: [N, C, h, w], filled.
        argmax_y: Not used by average pooling, as is ``argmax_x``.
        options: ``pool_mode`` (1 average; 0 maximum is not available), ``spatial_scale``, ``aligned_height``,
            ``aligned_width``, ``sampling_ratio``, ``aligned``.
    """
    features, (size, rest) = full_precision(input), _align_options(options)
    output.copy_(torchvision_ops().roi_align(features, rois.to(features.dtype), *size, *rest))


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor, **options: Any
) -> None:
    """Gradient of ``roi_align_forward``: fills ``grad_input`` [B, C, H, W] from ``grad_output`` [N, C, h, w]."""
    grad, (size, rest) = full_precision(grad_output), _align_options(options)
    grads = torchvision_ops()._roi_align_backward(grad, rois.to(grad.dtype), *size, *grad_input.shape, *rest)
    grad_input.copy_(grads)


def _align_options(options: dict[str, Any]) -> tuple[tuple, tuple]:
    """What torchvision takes before and after the shape of the gradient."""
    if options["pool_mode"] != 1:
        raise OpNotAvailableError(advice("roi_align with pool_mode='max'"))
    size = tuple(options[name] for name in ("spatial_scale", "aligned_height", "aligned_width"))
    return size, (options["sampling_ratio"], options["aligned"])
