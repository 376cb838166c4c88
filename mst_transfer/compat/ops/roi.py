"""RoIAlign, forward and backward.

Shapes: N RoIs, B images, C channels, H × W a feature map, h × w an output window.
"""

from typing import Any

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
