"""RoIAlign and RoIPool, forward and backward.

Shapes: N RoIs, B images, C channels, H × W a feature map, h × w an output window.
"""

from typing import Any

import torch
from torch import Tensor

from mst_transfer.compat.ops.common import OpNotAvailableError, advice, full_precision, torchvision_ops


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


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool with mmcv's bins, which start and end at fractions of a cell.

    torchvision rounds a RoI to cells before it divides it. So each bin, once its cells are known, goes to
    torchvision as a RoI of its own with one output cell.

    Args:
        input: [B, C, H, W].
        rois: [N, 5] as image index, x1, y1, x2, y2, the last row and column included.
        output: [N, C, h, w], filled.
        argmax: [N, C, h, w] int, filled with the chosen cell y · W + x, −1 for an empty bin.
    """
    features = full_precision(input)
    bins, empty = _roi_bins(rois.to(features.dtype), pooled_height, pooled_width, spatial_scale, *input.shape[2:])
    values, cells = torchvision_ops().roi_pool(features, bins, 1.0, 1, 1)  # [N·h·w, C, 1, 1]
    values = values.flatten(1).masked_fill(empty[:, None], 0)
    cells = cells.flatten(1).masked_fill(empty[:, None], -1)
    window = (len(rois), pooled_height, pooled_width, input.shape[1])
    output.copy_(values.reshape(window).permute(0, 3, 1, 2))
    argmax.copy_(cells.reshape(window).permute(0, 3, 1, 2))


def _roi_bins(
    rois: Tensor, num_rows: int, num_columns: int, spatial_scale: float, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Bins [N·h·w, 5] as image index and first and last cell, and whether each is empty [N·h·w]."""
    starts = rois[:, 1:3] * spatial_scale
    sizes = (rois[:, 3:5] + 1) * spatial_scale - starts
    valid = (sizes > 0).all(dim=1)  # [N]

    def edges(axis: int, num_bins: int, limit: int) -> tuple[Tensor, Tensor]:
        steps = torch.arange(num_bins + 1, device=rois.device, dtype=rois.dtype)
        cuts = steps * (sizes[:, axis] / num_bins)[:, None] + starts[:, axis, None]  # [N, bins + 1]
        return cuts[:, :-1].floor().clamp(0, limit), cuts[:, 1:].ceil().clamp(0, limit)

    (x1, x2), (y1, y2) = edges(0, num_columns, width), edges(1, num_rows, height)
    shape = (len(rois), num_rows, num_columns)
    columns = [
        rois[:, 0, None, None].expand(shape),
        x1[:, None, :].expand(shape),
        y1[:, :, None].expand(shape),
        x2[:, None, :].expand(shape) - 1,
        y2[:, :, None].expand(shape) - 1,
    ]
    bins = torch.stack([column.flatten() for column in columns], dim=1)
    empty = (bins[:, 3] < bins[:, 1]) | (bins[:, 4] < bins[:, 2]) | ~valid[:, None, None].expand(shape).flatten()
    return bins, empty


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Gradient of ``roi_pool_forward``: adds each output's gradient at the cell that ``argmax`` chose."""
    batch, channels, height, width = grad_input.shape
    grad = torch.zeros(
        batch, channels, height * width, device=grad_input.device, dtype=full_precision(grad_output).dtype
    )
    chosen = argmax >= 0
    image = rois[:, 0].long()[:, None, None, None].expand_as(argmax)
    channel = torch.arange(channels, device=argmax.device)[None, :, None, None].expand_as(argmax)
    index = (image[chosen], channel[chosen], argmax[chosen].long())
    grad.index_put_(index, full_precision(grad_output)[chosen], accumulate=True)
    grad_input.copy_(grad.view_as(grad_input))
