"""Label-free monitors against numpy and against cases whose value is known."""

import math

import numpy as np
import pytest
import torch

from mst_transfer.probes.monitors import effective_rank, prototypes_in_use


def test_effective_rank_equals_the_equation():
    features = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8)
    values = np.linalg.svd(features.numpy().astype(np.float64), compute_uv=False)
    p = values / values.sum()
    assert effective_rank(features) == pytest.approx(math.exp(-sum(x * math.log(x) for x in p)), rel=1e-5)


def test_effective_rank_of_known_cases():
    assert effective_rank(torch.eye(6)) == pytest.approx(6)
    assert effective_rank(torch.ones(9, 4)) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.zeros(3, 3)) == pytest.approx(1)
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan], [1.0, 2.0]])))


def test_prototypes_in_use():
    sharp = 1000 * torch.eye(8)[[0, 0, 1, 1]]
    assert prototypes_in_use(sharp, torch.zeros(8), 1.0) == pytest.approx(2)
    assert prototypes_in_use(sharp[:2], torch.zeros(8), 1.0) == pytest.approx(1)
    assert prototypes_in_use(torch.zeros(5, 8), torch.zeros(8), 0.04) == pytest.approx(8)
    logits, center = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 0, -1, 2])
    rows = [[math.exp((x - c) / 0.5) for x, c in zip(r, center.tolist(), strict=True)] for r in logits.tolist()]
    mean = [sum(row[j] / sum(row) for row in rows) / 6 for j in range(4)]
    expected = math.exp(-sum(p * math.log(p) for p in mean))
    assert prototypes_in_use(logits, center, 0.5) == pytest.approx(expected, rel=1e-5)
