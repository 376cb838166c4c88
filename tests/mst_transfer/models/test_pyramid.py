"""The pyramid: shapes for every patch size, exact geometry, and the layers that method.md asks for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mst_transfer.models.necks import STRIDES, Rescale, TokenPyramid, build_resampler


@pytest.mark.parametrize("patch_size", [4, 7, 8, 12, 14, 16, 32])
@pytest.mark.parametrize("size", [(64, 96), (50, 33)])
def test_shapes(patch_size, size):
    grid = torch.randn(2, 6, -(-size[0] // patch_size), -(-size[1] // patch_size))
    maps = TokenPyramid(6, patch_size)([grid] * 4, size)
    for output, stride in zip(maps, STRIDES, strict=True):
        assert output.shape == (2, 6, -(-size[0] // stride), -(-size[1] // stride))


def test_patch_16_equals_the_operations_written_out():
    pyramid = TokenPyramid(5, 16)
    grids = [torch.randn(1, 5, 3, 5) for _ in STRIDES]
    maps = pyramid(grids, (48, 80))
    up = pyramid.resamplers
    x = F.conv_transpose2d(grids[0], up[0][0].weight, up[0][0].bias, stride=2)
    x = F.layer_norm(x.permute(0, 2, 3, 1), (5,), up[0][1].weight, up[0][1].bias, 1e-6).permute(0, 3, 1, 2)
    x = F.conv_transpose2d(F.gelu(x), up[0][3].weight, up[0][3].bias, stride=2)
    torch.testing.assert_close(maps[0], x)
    torch.testing.assert_close(maps[1], F.conv_transpose2d(grids[1], up[1][0].weight, up[1][0].bias, stride=2))
    torch.testing.assert_close(maps[2], grids[2])
    # ceil mode: the odd last row and column keep a cell of their own, as a stride-2 convolution would leave them
    torch.testing.assert_close(maps[3], F.max_pool2d(F.pad(grids[3], (0, 1, 0, 1), value=-torch.inf), 2))


@pytest.mark.parametrize("patch_size", [12, 14])
@pytest.mark.parametrize("stride", STRIDES)
def test_cells_lie_where_anchors_and_roi_align_look(patch_size, stride):
    """A grid that holds each cell's centre in pixels must hold the new cells' centres afterwards."""
    resample = build_resampler(1, patch_size / stride)
    scale = 1.0
    for layer in resample:
        if isinstance(layer, nn.ConvTranspose2d):
            scale *= 2
        elif isinstance(layer, nn.MaxPool2d):
            scale /= layer.stride
    (rescale,) = [layer for layer in resample if isinstance(layer, Rescale)]
    cell = patch_size / scale  # side in pixels of what the last step is given
    centers = (torch.arange(40, dtype=torch.float64) + 0.5) * cell
    result = rescale(centers.expand(1, 1, 40, 40))[0, 0, 10]
    expected = (torch.arange(len(result), dtype=torch.float64) + 0.5) * stride
    inside = (expected > centers[0]) & (expected < centers[-1])
    assert inside.sum() > 25
    torch.testing.assert_close(result[inside], expected[inside], atol=1e-9, rtol=0)
