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


def test_batch_norm_stands_before_both_activations():
    """Against the equation in float64, the teacher's evaluation mode too: there are no running statistics."""
    torch.manual_seed(0)
    head = DINOHead(6, out_dim=5, hidden_dim=7, bottleneck_dim=4, use_bn=True).double()
    assert not list(head.buffers())
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    x = tokens = torch.randn(9, 6, dtype=torch.float64)
    for linear, norm in (head.mlp[0], head.mlp[1]), (head.mlp[3], head.mlp[4]):
        x = x @ linear.weight.T + linear.bias
        x = (x - x.mean(0)) / (((x - x.mean(0)) ** 2).mean(0) + 1e-5).sqrt() * norm.weight + norm.bias
        x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    x = x @ head.mlp[6].weight.T + head.mlp[6].bias
    rows = head.last_layer.weight_v / head.last_layer.weight_v.norm(dim=1, keepdim=True) * head.last_layer.weight_g
    expected = x / x.norm(dim=1, keepdim=True) @ rows.T
    torch.testing.assert_close(head(tokens), expected)
    torch.testing.assert_close(head.eval()(tokens), expected)


def test_bad_width_is_named():
    with pytest.raises(ValueError, match="head.out_dim = 0"):
        DINOHead(24, out_dim=0)
