"""Focal loss on logits, forward and backward."""

import torch
from torch import Tensor

from mst_transfer.compat.ops.common import full_precision


def _focal_loss(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    from torchvision.ops import sigmoid_focal_loss

    num_classes = input.shape[1]
    one_hot = torch.nn.functional.one_hot(target, num_classes + 1)[:, :num_classes]  # background has no column
    loss = sigmoid_focal_loss(input, one_hot.to(input.dtype), alpha=alpha, gamma=gamma, reduction="none")
    if weight.numel():
        per_sample = torch.cat([weight.to(loss.dtype), weight.new_ones(1, dtype=loss.dtype)])[target]
        loss = loss * per_sample[:, None]
    return loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (Lin et al., 2017) of each logit.

    Args:
        input: [N, C] logits.
        target: [N] class index; C means background.
        weight: [C] factor of a sample by its class, 1 for background, or empty.
        output: [N, C], filled.
    """
    output.copy_(_focal_loss(full_precision(input), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Gradient of the sum of ``sigmoid_focal_loss_forward``, filled into ``grad_input`` [N, C]."""
    with torch.enable_grad():
        logits = full_precision(input).detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, logits)[0])
