"""Deformable convolutions, versions 1 and 2, forward and backward.

Shapes: B images, C channels in, C' out, H × W the input, H' × W' the output. mmcv gives kernel, stride, padding,
dilation, groups by name: ``sizes``. ``columns`` and ``ones`` are buffers of its own kernels and not used.
"""

from typing import Any

from torch import Tensor

from mst_transfer.compat.ops.common import full_precision, torchvision_ops

_VERSION_1 = ("dH", "dW", "padH", "padW", "dilationH", "dilationW")
_VERSION_2 = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w")


def _inputs(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, sizes: dict[str, Any]
) -> tuple:
    """The arguments of torchvision's operators, in full precision."""
    input = full_precision(input)
    names = _VERSION_1 if "dH" in sizes else _VERSION_2
    return (
        input,
        weight.to(input.dtype),
        offset.to(input.dtype),
        input.new_zeros(len(input), 1) if mask is None else mask.to(input.dtype),
        input.new_zeros(len(weight)) if bias is None else bias.to(input.dtype),
        *(sizes[name] for name in names),
        sizes["group"],
        sizes["deformable_group"],
        mask is not None,
    )


def _gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, sizes: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask and bias."""
    inputs = _inputs(input, weight, offset, mask, None, sizes)
    return torchvision_ops()._deform_conv2d_backward(grad_output.to(inputs[0].dtype), *inputs)


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **sizes: int
) -> None:
    """Deformable convolution, version 1.

    Args:
        input: [B, C, H, W].
        weight: [C', C / group, kH, kW].
        offset: [B, 2 · deformable_group · kH · kW, H', W'], y before x.
        output: [B, C', H', W'], filled.
    """
    output.copy_(torchvision_ops().deform_conv2d(*_inputs(input, weight, offset, None, None, sizes)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **sizes: int,
) -> None:
    """Gradients of ``deform_conv_forward`` with respect to input and offset, filled in."""
    grads = _gradients(grad_output, input, weight, offset, None, sizes)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **sizes: int,
) -> None:
    """Adds ``scale`` times the gradient of ``deform_conv_forward`` with respect to the weight to ``grad_weight``."""
    grads = _gradients(grad_output, input, grad_weight, offset, None, sizes)
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
    with_bias: bool,
    **sizes: int,
) -> None:
    """Deformable convolution, version 2.

    Args:
        input: [B, C, H, W].
        weight: [C', C / group, kernel_h, kernel_w].
        bias: [C'], read if ``with_bias``.
        offset: [B, 2 · deformable_group · kernel_h · kernel_w, H', W'], y before x.
        mask: [B, deformable_group · kernel_h · kernel_w, H', W'].
        output: [B, C', H', W'], filled.
    """
    inputs = _inputs(input, weight, offset, mask, bias if with_bias else None, sizes)
    output.copy_(torchvision_ops().deform_conv2d(*inputs))


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
    with_bias: bool,
    **sizes: int,
) -> None:
    """Gradients of ``modulated_deform_conv_forward``, filled in."""
    grads = _gradients(grad_output, input, weight, offset, mask, sizes)
    targets = [grad_input, grad_weight, grad_offset, grad_mask] + ([grad_bias] if with_bias else [])
    for target, grad in zip(targets, grads, strict=False):
        target.copy_(grad)
