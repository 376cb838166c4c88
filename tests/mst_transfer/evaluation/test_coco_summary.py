"""COCO's figures from the arrays of an evaluation, against sums written out; all numbers of an array are different."""

import numpy as np
import pytest

from mst_transfer.evaluation.coco_summary import Evaluation, category_figures, summarize

THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
LEVELS, CATEGORIES, AREAS, MAX_DETS = 7, (4, 9, 11), 4, (10, 100, 300)


@pytest.fixture
def evaluation() -> Evaluation:
    """Random numbers, -1 where a category has nothing of an area."""
    rng = np.random.default_rng(0)
    precision = rng.random((len(THRESHOLDS), LEVELS, len(CATEGORIES), AREAS, len(MAX_DETS)))
    recall = rng.random((len(THRESHOLDS), len(CATEGORIES), AREAS, len(MAX_DETS)))
    precision[:, :, 1, 2], recall[:, 1, 2] = -1, -1
    precision[:, 4:, 0] = 0  # recall that is not reached
    return Evaluation(precision, recall, CATEGORIES, np.linspace(0.5, 0.95, 10), MAX_DETS)


def mean(values: list[float]) -> float:
    found = [value for value in values if value != -1]
    return sum(found) / len(found)


def precision_of(evaluation: Evaluation, thresholds: list[float], categories: list[int], area: int, dets: int) -> float:
    return mean(
        [
            float(evaluation.precision[THRESHOLDS.index(t), level, k, area, MAX_DETS.index(dets)])
            for t in thresholds for level in range(LEVELS) for k in categories
        ]
    )  # fmt: skip


def recall_of(evaluation: Evaluation, area: int, dets: int) -> float:
    places = [(t, k) for t in range(len(THRESHOLDS)) for k in range(len(CATEGORIES))]
    return mean([float(evaluation.recall[t, k, area, MAX_DETS.index(dets)]) for t, k in places])


def test_the_twelve_figures(evaluation: Evaluation) -> None:
    every = list(range(len(CATEGORIES)))
    expected = [precision_of(evaluation, THRESHOLDS, every, 0, 100)]  # COCO's first figure alone counts 100 of many
    expected += [precision_of(evaluation, [threshold], every, 0, 300) for threshold in (0.5, 0.75)]
    expected += [precision_of(evaluation, THRESHOLDS, every, area, 300) for area in (1, 2, 3)]
    expected += [recall_of(evaluation, 0, dets) for dets in MAX_DETS]
    expected += [recall_of(evaluation, area, 300) for area in (1, 2, 3)]
    assert summarize(evaluation) == pytest.approx(expected)


def test_the_figures_of_a_category(evaluation: Evaluation) -> None:
    for index, category in enumerate(CATEGORIES):
        expected = [precision_of(evaluation, few, [index], 0, 300) for few in (THRESHOLDS, [0.5], [0.75])]
        areas = [1, 3] if index == 1 else [1, 2, 3]
        expected += [precision_of(evaluation, THRESHOLDS, [index], area, 300) for area in areas]
        found = category_figures(evaluation, category)
        assert [value for value in found if not np.isnan(value)] == pytest.approx(expected)
        assert np.isnan(found[4]) == (index == 1)
