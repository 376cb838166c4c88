import pytest
import torch
from torch import nn

from pretrain.head import DINOHead, WeightNormLinear


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_last_layer_equals_torch_weight_norm():
    torch.manual_seed(0)
    theirs = nn.utils.weight_norm(nn.Linear(8, 20, bias=False))
    ours = WeightNormLinear(8, 20, train_norm=True)
    ours.load_state_dict(theirs.state_dict())  # the same names and shapes
    with torch.no_grad():
        for layer in (ours, theirs):
            layer.weight_g.copy_(torch.rand(20, 1, generator=torch.Generator().manual_seed(1)) + 0.5)
    x = torch.randn(5, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    torch.testing.assert_close(ours.weight_v.grad, theirs.weight_v.grad)
    torch.testing.assert_close(ours.weight_g.grad, theirs.weight_g.grad)


def test_bad_width_is_named():
    with pytest.raises(ValueError, match="head.out_dim = 0"):
        DINOHead(24, out_dim=0)
