"""Recalls of proposals: by hand, and equal to mmdet's matching on crowded boxes."""

import math

import numpy as np
import pytest
from mmdet.evaluation.functional.bbox_overlaps import bbox_overlaps
from mmdet.evaluation.functional.recall import _recalls

from mst_transfer.evaluation.proposal_recall import average_recalls


def test_a_proposal_finds_one_box():
    truths = [np.array([[0, 0, 10, 10], [0, 0, 10, 10.0]])]
    proposals = [np.array([[0, 0, 10, 10], [0, 0, 10, 8.0]])]
    assert average_recalls(truths, proposals, [1, 2], np.array([0.5, 0.9])) == [0.5, 0.75]


def test_nothing_to_find_and_nothing_found():
    nothing, one = np.zeros((0, 4)), np.array([[0, 0, 10, 10.0]])
    assert average_recalls([one, nothing], [nothing, one], [5], np.array([0.5])) == [0.0]
    assert math.isnan(average_recalls([nothing], [one], [5], np.array([0.5]))[0])


@pytest.mark.parametrize("seed", range(5))
def test_equals_mmdets_matching(seed):
    rng = np.random.default_rng(seed)

    def boxes(number):
        corners = rng.uniform(0, 10, (number, 2))
        return np.concatenate([corners, corners + rng.uniform(5, 20, (number, 2))], axis=1)

    truths = [boxes(number) for number in (6, 0, 3, 1)]
    proposals = [boxes(number) for number in (12, 5, 0, 2)]
    overlaps = np.empty(len(truths), dtype=object)
    overlaps[:] = [bbox_overlaps(*pair) for pair in zip(truths, proposals, strict=True)]
    numbers, thresholds = np.array([2, 5, 100]), np.linspace(0.1, 0.9, 9)
    expected = _recalls(overlaps, numbers, thresholds).mean(axis=1)
    np.testing.assert_allclose(average_recalls(truths, proposals, numbers, thresholds), expected, rtol=1e-12)
