"""Linear layers through oneDNN equal PyTorch's, and are taken where they should be."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mst_transfer.devices import onednn_products
from mst_transfer.devices.onednn_products import OneDNNProducts, quick_products, quick_recomputation


@pytest.fixture
def calls(monkeypatch):
    """Calls of oneDNN, on whatever processor the test runs."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(onednn_products, "slow_mkl", lambda: True)
    monkeypatch.setattr(onednn_products, "_MIN_MULTIPLICATIONS", 1)
    made = []
    suits = onednn_products._suits
    monkeypatch.setattr(onednn_products, "_suits", lambda *args: made.append(suits(*args)) or made[-1])
    return made


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 0, 5), "strided"], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_pytorch(calls, shape, with_bias):
    inputs = torch.randn(5, 4, 3).permute(2, 1, 0) if shape == "strided" else torch.randn(shape)
    weight, bias = torch.randn(7, 5), torch.randn(7) if with_bias else None
    expected = F.linear(inputs, weight, bias)
    with torch.no_grad(), OneDNNProducts():
        torch.testing.assert_close(F.linear(inputs, weight, bias), expected)
        torch.testing.assert_close(F.linear(inputs, weight=weight, bias=bias), expected)
    assert calls == [inputs.numel() > 0] * 2


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 0, 5)], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("fixed", [None, "inputs", "weight"])
def test_gradients_equal_pytorchs(calls, shape, with_bias, fixed):
    found = []
    tensors = torch.randn(shape), torch.randn(7, 5), torch.randn(7) if with_bias else None
    for context in (nullcontext(), OneDNNProducts()):
        inputs, weight, bias = (None if x is None else x.clone().requires_grad_() for x in tensors)
        inputs.requires_grad_(fixed != "inputs"), weight.requires_grad_(fixed != "weight")
        with context:
            out = F.linear(inputs, weight, bias)
        (out * torch.arange(out.numel()).view(out.shape)).sum().backward()
        found.append([None if x is None else x.grad for x in (inputs, weight, bias)])
    assert calls == [inputs.numel() > 0]
    for ours, expected in zip(*found[::-1], strict=True):
        assert (ours is None) == (expected is None)
        if ours is not None:
            torch.testing.assert_close(ours, expected)


def test_gradients_of_shared_and_strided_tensors(calls):
    weight = torch.randn(4, 4, requires_grad=True)
    inputs = torch.randn(4, 3, requires_grad=True)
    with OneDNNProducts():
        F.linear(F.linear(inputs.t(), weight).relu(), weight.t()).square().sum().backward()
    found, inputs.grad = [weight.grad, inputs.grad], None
    weight.grad = None
    F.linear(F.linear(inputs.t(), weight).relu(), weight.t()).square().sum().backward()
    torch.testing.assert_close(found, [weight.grad, inputs.grad])
    assert calls == [True, True]


def test_matrices_with_gaps_are_copied_first(calls, monkeypatch):
    seen = []
    product = torch.ops.mkldnn._linear_pointwise

    def dense_only(rows, weight, *others):
        seen.append(all(x.is_contiguous() or x.t().is_contiguous() for x in (rows, weight)))
        return product(rows, weight, *others)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", dense_only)
    wide, weight = torch.randn(3, 4, 15, requires_grad=True), torch.randn(7, 9, requires_grad=True)
    with OneDNNProducts():
        out = F.linear(wide[:, :, 5:10], weight[:, 2:7])
    out[:, :, :3].sum().backward()  # the gradient has strides of zero
    assert seen == [True] * 3
    torch.testing.assert_close(
        weight.grad, torch.autograd.grad((wide[:, :, 5:10] @ weight[:, 2:7].T)[:, :, :3].sum(), weight)[0]
    )


def test_recomputation_takes_the_same_products(calls):
    """The backward pass lies outside; torch refuses a recomputation that saves other tensors."""
    layer, inputs = torch.nn.Linear(5, 7), torch.randn(2, 3, 5, requires_grad=True)
    options = dict(use_reentrant=False, context_fn=partial(quick_recomputation, torch.device("cpu")))
    for outer in (quick_products(), nullcontext()):
        with outer:
            out = checkpoint(lambda x: layer(x).tanh(), inputs, **options)
        out.sum().backward()
    assert calls == [True] * 4


@pytest.fixture
def short_is_long(calls, monkeypatch):
    monkeypatch.setattr(onednn_products, "_MIN_TOKENS", 3)
    monkeypatch.setattr(onednn_products, "_QUERIES", 4)  # of 10: the last part is smaller
    taken = []
    attention = onednn_products._attention
    monkeypatch.setattr(onednn_products, "_attention", lambda *args, **kw: taken.append(1) or attention(*args, **kw))
    return taken


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_equals_pytorchs(short_is_long, scale):
    query, key, value = torch.randn(2, 10, 3, 3, 5).permute(2, 0, 3, 1, 4)  # strided, as timm hands them over
    with OneDNNProducts():
        found = F.scaled_dot_product_attention(query, key, value, scale=scale)
        assert short_is_long == [1]
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, key, value, scale=scale))
    plain = ((query @ key.mT) * (5**-0.5 if scale is None else scale)).softmax(-1) @ value
    torch.testing.assert_close(found, plain)


def test_other_attention_is_pytorchs(short_is_long):
    tensors = torch.randn(3, 2, 3, 10, 5)
    mask = torch.rand(10, 10) > 0.5
    with OneDNNProducts():
        for options in (dict(attn_mask=mask), dict(is_causal=True), dict(dropout_p=0.5)):
            F.scaled_dot_product_attention(*tensors, **options)
        F.scaled_dot_product_attention(*tensors.double())
        F.scaled_dot_product_attention(*tensors.requires_grad_())
        assert not short_is_long
        with torch.no_grad():
            F.scaled_dot_product_attention(*tensors, attn_mask=None, dropout_p=0.0)
    assert short_is_long == [1]


def test_left_alone_elsewhere(calls):
    layer, inputs = torch.nn.Linear(5, 7), torch.randn(2, 5)
    with torch.no_grad(), OneDNNProducts():
        layer.double()(inputs.double())
        layer.float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(inputs)
            assert isinstance(quick_products(), nullcontext)
        assert isinstance(quick_products(), nullcontext)  # it is on already
    assert calls == [False] * 2
    assert isinstance(quick_products("cuda"), nullcontext) and isinstance(quick_products("cpu"), OneDNNProducts)


def test_flops_are_counted(calls):
    layer, inputs = torch.nn.Linear(5, 7), torch.randn(2, 3, 5, requires_grad=True)
    with FlopCounterMode(display=False) as counter, OneDNNProducts():
        layer(inputs).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("onednn, slow", [(0.4, True), (0.8, False), (1.5, False)])
def test_mkl_is_left_only_where_it_was_measured_to_be_slow(onednn, slow, monkeypatch):
    if not torch.backends.mkl.is_available():
        pytest.skip("this PyTorch has no MKL")
    onednn_products.slow_mkl.cache_clear()
    monkeypatch.setattr(onednn_products, "race", lambda alternatives, *sizes: dict(MKL=1.0, oneDNN=onednn))
    assert onednn_products.slow_mkl() == slow
    onednn_products.slow_mkl.cache_clear()
