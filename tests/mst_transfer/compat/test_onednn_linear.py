"""Linear layers through oneDNN equal PyTorch's, and are taken where they should be."""

import pytest
import torch
import torch.nn.functional as F

from mst_transfer.compat import onednn_linear
from mst_transfer.compat.onednn_linear import OneDNNLinear


@pytest.fixture
def calls(monkeypatch):
    """Calls of oneDNN, on whatever processor the test runs."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(onednn_linear, "slow_mkl", lambda: True)
    monkeypatch.setattr(onednn_linear, "_MIN_MULTIPLICATIONS", 1)
    made = []
    suits = onednn_linear._suits
    monkeypatch.setattr(onednn_linear, "_suits", lambda *args: made.append(suits(*args)) or made[-1])
    return made


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 0, 5)], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_pytorch(calls, shape, with_bias):
    inputs, weight, bias = torch.randn(shape), torch.randn(7, 5), torch.randn(7) if with_bias else None
    expected = F.linear(inputs, weight, bias)
    with torch.no_grad(), OneDNNLinear():
        torch.testing.assert_close(F.linear(inputs, weight, bias), expected)
        torch.testing.assert_close(F.linear(inputs, weight=weight, bias=bias), expected)
    assert calls == [inputs.numel() > 0] * 2


def test_strided_inputs(calls):
    layer, inputs = torch.nn.Linear(5, 7), torch.randn(5, 4, 3).permute(2, 1, 0)
    with torch.no_grad():
        expected = layer(inputs)
        with OneDNNLinear():
            torch.testing.assert_close(layer(inputs), expected)
    assert calls == [True]


def test_left_alone_elsewhere(calls):
    layer, inputs = torch.nn.Linear(5, 7), torch.randn(2, 5)
    with OneDNNLinear():
        layer(inputs).sum().backward()  # gradients
        with torch.no_grad():
            layer.double()(inputs.double())
            layer.float()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                layer(inputs)
    assert calls == [False] * 3 and layer.weight.grad is not None


def test_intels_processors_keep_mkl(monkeypatch):
    for maker, slow in (("GenuineIntel", False), ("", False), ("AuthenticAMD", torch.backends.mkl.is_available())):
        onednn_linear.slow_mkl.cache_clear()
        monkeypatch.setattr(onednn_linear, "_maker", lambda maker=maker: maker)
        assert onednn_linear.slow_mkl() == slow
    onednn_linear.slow_mkl.cache_clear()
