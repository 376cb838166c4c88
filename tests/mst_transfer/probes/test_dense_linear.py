"""Logistic regression against scikit-learn's (``make_logistic.py``), and its gradient against autograd."""

import numpy as np
import pytest
import torch
from golden_files import read
from planted_scenes import features_of

from mst_transfer.probes import dense_linear as module
from mst_transfer.probes.dense_linear import LogisticRegression

GOLDEN, ORIGIN = read("logistic.safetensors")


def golden_problem() -> LogisticRegression:
    soft_labels = GOLDEN["soft_labels"].numpy()
    features = features_of(GOLDEN["tokens"].numpy(), soft_labels, [(10, 15)])
    return LogisticRegression(features, features.select([0]))


@pytest.mark.parametrize(("in_memory", "double"), [(2**32, 2**23), (0, 2**23), (2**32, 0)])
def test_the_minimum_is_scikit_learns(monkeypatch, in_memory, double):
    monkeypatch.setattr(module, "_IN_MEMORY", in_memory)
    monkeypatch.setattr(module, "_DOUBLE", double)
    monkeypatch.setattr(module, "_CHUNK", 41)
    problem = golden_problem()
    for l2 in ORIGIN["l2s"]:
        problem.fit(l2, tolerance=1e-6)
        assert problem.classes.tolist() == [0, 1, 3, 4]
        weight, bias = (GOLDEN[f"{l2}/{name}"] for name in ("weight", "bias"))
        torch.testing.assert_close(problem.weight, weight, atol=1e-3, rtol=0)
        # only differences of biases count: scikit-learn's add up to 0
        torch.testing.assert_close(problem.bias - problem.bias.mean(), bias - bias.mean(), atol=1e-3, rtol=0)
        x = GOLDEN["tokens"].double()
        scaled = (x - x.mean(0)) / torch.where(x.std(0, unbiased=False) == 0, 1.0, x.std(0, unbiased=False))
        ours, theirs = (
            problem.scores(GOLDEN["tokens"].numpy()).double().softmax(1),
            (scaled @ weight.T + bias).softmax(1),
        )
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("double", [2**23, 0])
def test_the_gradient_of_the_equation_is_0_at_the_end(monkeypatch, double):
    monkeypatch.setattr(module, "_DOUBLE", double)
    problem = golden_problem()
    problem.fit(1e-2, tolerance=1e-5)
    weight, bias = problem.weight.clone().requires_grad_(), problem.bias.clone().requires_grad_()
    x, loss = (GOLDEN["tokens"].double() - problem.mean) / problem.scale, 0.5e-2 * weight.square().sum()
    for token, shares in zip(x, GOLDEN["soft_labels"], strict=True):
        powers = (weight @ token + bias).exp()
        for place, label in enumerate(problem.classes):
            loss = loss - shares[label] * (powers[place] / powers.sum()).log() / len(x)
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 1e-4


def test_where_a_fit_begins_makes_no_difference():
    path, direct = golden_problem(), golden_problem()
    path.fit(1e-1)
    for problem in (path, direct):
        problem.fit(1e-3, tolerance=1e-5)
    torch.testing.assert_close(path.weight, direct.weight, atol=1e-3, rtol=1e-3)


def test_one_class_alone_is_always_predicted():
    features = features_of(
        np.random.default_rng(0).normal(size=(6, 3)).astype("f4"), np.eye(3, dtype="f4")[[2] * 6], [(2, 3)]
    )
    problem = LogisticRegression(features, features.select([0]))
    problem.fit(1e-2)
    assert problem.classes.tolist() == [2] and problem.scores(features.image(0)).shape == (2, 3, 1)
