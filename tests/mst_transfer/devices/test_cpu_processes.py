"""Batches of unequal size in several processes, against torch's BatchNorm over all of them."""

from pathlib import Path

import pytest
import torch
from gloo_batch_norm_worker import SHAPES, SIZES, inputs_of, normalise_part
from process_groups import run_group
from torch import nn

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on the CPU; there is a GPU here")


@without_gpu
def test_unequal_batches_count_as_one(tmp_path: Path) -> None:
    """4, 1 and no images, as maps and as vectors; with a running mean of all steps too (momentum None)."""
    parts = run_group(normalise_part, len(SIZES), tmp_path / "group")
    for case, (shape, momentum) in enumerate(SHAPES):
        norm = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[0], momentum=momentum)
        x = inputs_of(shape).requires_grad_()
        for _ in range(2):
            y = norm(x)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        mine = [part[case] for part in parts]
        torch.testing.assert_close(torch.cat([part["y"] for part in mine]), y.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.cat([part["x"] for part in mine]), x.grad, rtol=1e-4, atol=1e-5)
        for name in ("weight", "bias"):
            gradient = sum(part[name] for part in mine)
            torch.testing.assert_close(gradient, getattr(norm, name).grad, rtol=1e-4, atol=1e-4)
        for part in mine:
            for name, buffer in norm.named_buffers():
                torch.testing.assert_close(part[name], buffer, msg=name)
