"""Deformable convolutions, versions 1 and 2, forward and backward.

Shapes: B images, C channels in, C' out, H × W the input, H' × W' the output.
"""

from torch import Tensor

from mst_transfer.compat.ops.common import full_precision, torchvision_ops


def _deform_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
    groups: int,
    offset_groups: int,
) -> Tensor:
    input = full_precision(input)
    mask_or_empty = input.new_zeros(len(input), 1) if mask is None else mask.to(input.dtype)
    bias_or_zero = input.new_zeros(len(weight)) if bias is None else bias.to(input.dtype)
    return torchvision_ops().deform_conv2d(
        input,
        weight.to(input.dtype),
        offset.to(input.dtype),
        mask_or_empty,
        bias_or_zero,
        *geometry,
        groups,
        offset_groups,
        mask is not None,
    )


def _deform_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: tuple[int, ...],
    groups: int,
    offset_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, weight, offset, mask and bias."""
    input = full_precision(input)
    return torchvision_ops()._deform_conv2d_backward(
        grad_output.to(input.dtype),
        input,
        weight.to(input.dtype),
        offset.to(input.dtype),
        input.new_zeros(len(input), 1) if mask is None else mask.to(input.dtype),
        input.new_zeros(len(weight)),
        *geometry,
        groups,
        offset_groups,
        mask is not None,
    )


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Deformable convolution, version 1.

    Args:
        input: [B, C, H, W].
        weight: [C', C / group, kH, kW].
        offset: [B, 2 · deformable_group · kH · kW, H', W'], y before x.
        output: [B, C', H', W'], filled.
        columns: Not used, as are ``ones`` and ``im2col_step``.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    output.copy_(_deform_forward(input, weight, offset, None, None, geometry, group, deformable_group))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of ``deform_conv_forward`` with respect to input and offset, filled in."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    grads = _deform_backward(grad_output, input, weight, offset, None, geometry, group, deformable_group)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Adds ``scale`` times the gradient of ``deform_conv_forward`` with respect to the weight to
    ``grad_weight``.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    grads = _deform_backward(grad_output, input, grad_weight, offset, None, geometry, group, deformable_group)
    grad_weight.add_(grads[1].to(grad_weight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Deformable convolution, version 2.

    Args:
        input: [B, C, H, W].
        weight: [C', C / group, kernel_h, kernel_w].
        bias: [C'], read if ``with_bias``.
        offset: [B, 2 · deformable_group · kernel_h · kernel_w, H', W'], y before x.
        mask: [B, deformable_group · kernel_h · kernel_w, H', W'].
        output: [B, C', H', W'], filled.
        ones: Not used, as is ``columns``.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)
    used_bias = bias if with_bias else None
    output.copy_(_deform_forward(input, weight, offset, mask, used_bias, geometry, group, deformable_group))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Gradients of ``modulated_deform_conv_forward``, filled in."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)
    grads = _deform_backward(grad_output, input, weight, offset, mask, geometry, group, deformable_group)
    targets = [grad_input, grad_weight, grad_offset, grad_mask] + ([grad_bias] if with_bias else [])
    for target, grad in zip(targets, grads, strict=False):
        target.copy_(grad)
