"""k-NN against a plain loop and against DINO's own code."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mst_transfer.probes.knn import knn_accuracy, knn_votes

GOLDEN = Path(__file__).parents[2] / "golden"
sys.path.append(str(GOLDEN))  # for dino_inputs


def test_votes_equal_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    train = F.normalize(torch.randn(30, 5, generator=generator), dim=1)
    labels = torch.randint(0, 4, (30,), generator=generator)
    queries = F.normalize(torch.randn(8, 5, generator=generator), dim=1)
    similarity, neighbours = (queries @ train.T).topk(6)
    votes = knn_votes(similarity, labels[neighbours], temperature=0.2, num_classes=4)
    for row, query in zip(votes, queries, strict=True):
        cosines = sorted(((float(query @ t), int(c)) for t, c in zip(train, labels, strict=True)), reverse=True)
        expected = [0.0] * 4
        for cosine, label in cosines[:6]:
            expected[label] += math.exp((cosine - cosines[0][0]) / 0.2)
        assert row.tolist() == pytest.approx(expected, rel=1e-5)


def test_low_temperatures_do_not_overflow():
    """One neighbour of class 1 outweighs two of class 0 that are less like the query."""
    similarity, labels = torch.tensor([[0.99, 0.9, 0.9]]), torch.tensor([[1, 0, 0]])
    for temperature in (0.07, 0.011, 1e-3):
        votes = knn_votes(similarity, labels, temperature, num_classes=2)
        assert votes.isfinite().all() and votes.argmax() == 1


def test_accuracy_equals_the_public_code():
    from dino_inputs import clusters

    results = json.loads((GOLDEN / "dino_knn.json").read_text())["results"]
    assert len({round(result["top1"], 1) for result in results}) > 8, "they would not tell settings apart"
    for result in results:
        k, temperature = result["k"], result["temperature"]
        ours = knn_accuracy(*clusters(result["seed"]), [k], temperature, chunk=64)[k]
        assert ours == pytest.approx(result["top1"], abs=1e-9)


def test_several_k_at_once():
    generator = torch.Generator().manual_seed(1)
    sets = [torch.randn(40, 3, generator=generator), torch.arange(40) % 3]
    both = knn_accuracy(*sets, *sets, [1, 10])
    assert both == {1: 100.0, 10: knn_accuracy(*sets, *sets, [10])[10]}


@pytest.mark.parametrize(
    ("options", "message"), [({"ks": [9]}, r"k=9 must lie in 1 … 8"), ({"ks": [2], "temperature": 0.0}, "positive")]
)
def test_wrong_numbers_are_named(options, message):
    features, labels = torch.eye(8), torch.arange(8)
    with pytest.raises(ValueError, match=message):
        knn_accuracy(features, labels, features, labels, **options)
