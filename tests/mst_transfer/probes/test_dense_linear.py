"""Logistic regression against scikit-learn's (``make_logistic.py``), and its gradient against autograd."""

import numpy as np
import pytest
import torch
from golden_files import read
from planted_scenes import features_of

from mst_transfer.probes import dense_linear as module
from mst_transfer.probes.dense_linear import LogisticRegression

GOLDEN, ORIGIN = read("logistic.safetensors")


def golden_problem():
    soft_labels = GOLDEN["soft_labels"].numpy()
    features = features_of(GOLDEN["tokens"].numpy(), soft_labels, [(10, 15)])
    return LogisticRegression(features, features.select([0]))


@pytest.mark.parametrize("in_memory", [2**32, 0])
def test_the_minimum_is_scikit_learns(monkeypatch, in_memory):
    monkeypatch.setattr(module, "_IN_MEMORY", in_memory)
    monkeypatch.setattr(module, "_CHUNK", 41)
    problem = golden_problem()
    for l2 in ORIGIN["l2s"]:
        fitted = problem.fit(l2, tolerance=1e-6)
        assert fitted.classes.tolist() == [0, 1, 3, 4]
        weight, bias = (GOLDEN[f"{l2}/{name}"] for name in ("weight", "bias"))
        torch.testing.assert_close(fitted.weight.double(), weight, atol=1e-3, rtol=0)
        # only differences of biases count: scikit-learn's add up to 0
        torch.testing.assert_close(fitted.bias.double() - fitted.bias.mean(), bias - bias.mean(), atol=1e-3, rtol=0)
        x = GOLDEN["tokens"].double()
        scaled = (x - x.mean(0)) / torch.where(x.std(0, unbiased=False) == 0, 1.0, x.std(0, unbiased=False))
        ours, theirs = fitted(GOLDEN["tokens"].numpy()).double().softmax(1), (scaled @ weight.T + bias).softmax(1)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_loss_and_gradient_are_those_of_the_equation():
    problem = golden_problem()
    generator = torch.Generator().manual_seed(0)
    problem.weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    problem.bias = torch.randn(4, generator=generator, dtype=torch.float64)
    weight, bias = problem.weight.clone().requires_grad_(), problem.bias.clone().requires_grad_()
    x = (GOLDEN["tokens"].double() - problem.mean) / problem.scale
    log_p = torch.log_softmax(x @ weight.T + bias, dim=1)
    expected = -(GOLDEN["soft_labels"][:, [0, 1, 3, 4]] * log_p).sum() / len(x)
    gradients = torch.autograd.grad(expected, [weight, bias])
    with torch.no_grad():
        loss, *ours = problem.loss()
    torch.testing.assert_close(loss, expected.detach(), atol=1e-5, rtol=1e-5)
    for one, other in zip(ours, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_where_a_fit_begins_makes_no_difference():
    path = golden_problem()
    path.fit(1e-1)
    torch.testing.assert_close(path.fit(1e-3).weight, golden_problem().fit(1e-3).weight, atol=1e-3, rtol=1e-3)


def test_one_class_alone_is_always_predicted():
    features = features_of(
        np.random.default_rng(0).normal(size=(6, 3)).astype("f4"), np.eye(3, dtype="f4")[[2] * 6], [(2, 3)]
    )
    fitted = LogisticRegression(features, features.select([0])).fit(1e-2)
    assert fitted.classes.tolist() == [2] and fitted(features.image(0)).shape == (2, 3, 1)
