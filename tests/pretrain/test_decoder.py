import math

import pytest
import torch
import torch.nn.functional as F

from pretrain.decoder import RestoringDecoder, upsampling_factors


@pytest.mark.parametrize("stride", [4, 7, 8, 12, 14, 16, 32])
def test_restores_the_whole_view(stride):
    decoder = RestoringDecoder(in_dim=10, stride=stride, channels=(8, 4))
    assert math.prod(upsampling_factors(stride)) == stride
    assert decoder(torch.randn(2, 3, 5, 10)).shape == (2, 3, 3 * stride, 5 * stride)


@pytest.mark.parametrize("stride", [8, 12])
def test_equals_the_stages_as_written(stride):
    """(3x3 conv, BatchNorm, ReLU, up-sampling) a stage and the 1x1 convolution to RGB at full size, last."""
    torch.manual_seed(0)
    decoder = RestoringDecoder(in_dim=6, stride=stride, channels=(5, 4, 3)).eval()
    tokens = torch.randn(2, 3, 4, 6)
    x = tokens.permute(0, 3, 1, 2)
    for stage, factor in zip(decoder.stages, upsampling_factors(stride), strict=True):
        conv, norm, _ = stage
        x = F.conv2d(x, conv.weight, padding=1)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        x = F.interpolate(x.clamp(min=0), scale_factor=factor, mode="bilinear", align_corners=False)
    expected = F.conv2d(x, decoder.to_rgb.weight, decoder.to_rgb.bias)
    torch.testing.assert_close(decoder(tokens), expected)


def test_bad_channels_are_named():
    with pytest.raises(ValueError, match="decoder.channels"):
        RestoringDecoder(4, 8, channels=())
