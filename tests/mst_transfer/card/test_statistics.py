"""Intervals against the two-way layout, hotcoco's bootstrap and noncentral t; what a verdict says."""

import hashlib
from statistics import mean, variance

import hotcoco
import numpy as np
import pytest
from numpy.typing import NDArray
from random_coco import random_dataset
from scipy import stats

from mst_transfer.card.measures import Accuracy, MeanIoU, mean_ap
from mst_transfer.card.statistics import Difference, _draws, _estimate, compare, holm, interval, sentence


def outcomes(seed: int, num_seeds: int, num_images: int, better: float = 0.0) -> list[Accuracy]:
    """Images differ in difficulty, seeds in skill, and both in what they get right."""
    random = np.random.default_rng(seed)
    skill = random.normal(0, 0.15, (num_seeds, 1)) + random.normal(0, 1, num_images) + better
    return [Accuracy(row > 0) for row in skill + random.normal(0, 0.5, skill.shape)]


def two_way(table: NDArray) -> tuple[float, float]:
    """Standard error and degrees of freedom of the mean of ``[S, n]`` from its mean squares, term by term."""
    seeds, images = table.shape
    by_seed, by_image, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_seeds = images * sum((value - mean) ** 2 for value in by_seed) / (seeds - 1)
    of_images = seeds * sum((value - mean) ** 2 for value in by_image) / (images - 1)
    rest = sum((table[s, i] - by_seed[s] - by_image[i] + mean) ** 2 for s in range(seeds) for i in range(images)) / (
        (seeds - 1) * (images - 1)
    )
    total = max(of_seeds + of_images - rest, of_seeds, of_images)
    spread = of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1) + rest**2 / ((seeds - 1) * (images - 1))
    return (total / (seeds * images)) ** 0.5, total**2 / spread


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_a_difference_of_means_is_that_of_the_two_way_layout(num_seeds: int) -> None:
    """Up to the bootstrap's own error, some 2 per cent of a standard error at 1,000 draws."""
    a, b = outcomes(1, num_seeds, 150, 0.3), outcomes(2, num_seeds, 150)
    table = np.stack([100.0 * x.outcomes - 100.0 * y.outcomes for x, y in zip(a, b, strict=True)])
    error, freedom = two_way(table)
    difference = compare(a, b)
    assert difference.value == pytest.approx(table.mean())
    assert difference.high - difference.value == pytest.approx(stats.t.ppf(0.975, freedom) * error, rel=0.08)
    assert difference.value - difference.low == pytest.approx(difference.high - difference.value)
    assert difference.p_value == pytest.approx(2 * stats.t.sf(abs(table.mean()) / error, freedom), abs=0.02)


@pytest.mark.parametrize(("of_seeds", "of_images", "of_both"), [(1, 1, 0.3), (0.1, 0.1, 1), (1, 0.1, 0.1), (0.1, 1, 0)])
def test_the_estimate_is_the_formula_term_by_term(of_seeds: float, of_images: float, of_both: float) -> None:
    """Whichever part is the largest; G is 7."""
    random = np.random.default_rng(3)
    drawn = of_images * random.normal(size=50) + of_both * random.normal(size=(4, 50))
    per_seed = of_seeds * random.normal(size=4)
    v_seed = variance(per_seed.tolist()) / 4
    v_image = variance([mean([drawn[s, r] for s in range(4)]) for r in range(50)]) * 7 / 6
    apart = [[drawn[s, r] - mean(drawn[:, r].tolist()) for r in range(50)] for s in range(4)]
    v_both = sum(variance(row) for row in apart) / (4 * 3) * 7 / 6
    v = max(v_seed + v_image - v_both, v_seed, v_image)
    freedom = v**2 / (v_seed**2 / 3 + v_image**2 / 6 + v_both**2 / (3 * 6))
    assert _estimate(np.column_stack([per_seed, drawn]), 7) == pytest.approx((mean(per_seed.tolist()), v**0.5, freedom))


def test_an_interval_holds_the_value_and_stays_a_share() -> None:
    measures = outcomes(1, 3, 40, 2.5)
    found = interval(measures)
    assert found.per_seed == tuple(100 * measure.outcomes.mean() for measure in measures)
    assert found.value == pytest.approx(np.mean(found.per_seed)) and found.num_images == 40
    assert 0 < found.low < found.value < found.high == 100


def detections(dataset: dict, seed: int, noise: float) -> list[dict]:
    """Every box moved by some pixels, and one somewhere else."""
    random = np.random.default_rng(seed)
    results = []
    for truth in dataset["annotations"]:
        for spread, score in ((noise, 0.3), (40.0, 0.0)):
            box = [float(value) for value in np.maximum(truth["bbox"] + random.normal(0, spread, 4), 1)]
            found = {key: truth[key] for key in ("image_id", "category_id")}
            results.append({**found, "bbox": box, "score": score + random.random() / 2})
    return results


def test_one_seed_agrees_with_hotcoco() -> None:
    """Up to its fault: it counts an image once, however often it was drawn, so that its errors are 0.76 of the true."""
    dataset = random_dataset(1, num_images=50)
    results = [detections(dataset, 1, noise=2.0), detections(dataset, 2, noise=4.0)]
    truth = hotcoco.COCO(dataset)
    runs = [hotcoco.COCOeval(truth, truth.load_res(found), "bbox") for found in results]
    for run in runs:
        run.evaluate()
    theirs = hotcoco.compare(*runs, n_bootstrap=2000)
    first, second = (mean_ap(dataset, found, "bbox") for found in results)
    ours = compare([second], [first])
    assert ours.kind == "one seed, images only" and ours.value < -5
    assert ours.value == pytest.approx(100 * theirs["deltas"]["AP"])
    once, often = (second.figures(drawn) - first.figures(drawn) for drawn in (_draws(50).clip(max=1), _draws(50)))
    assert once.std() == pytest.approx(100 * theirs["ci"]["AP"]["std_err"], rel=0.08)
    assert 0.7 < once.std() / often.std() < 0.87
    assert ours.high - ours.value == pytest.approx(stats.t.ppf(0.975, 49) * often.std() * (50 / 49) ** 0.5, rel=1e-3)


def test_a_checkpoint_against_itself_is_nothing() -> None:
    for num_seeds in (1, 2, 3):
        measures = outcomes(0, num_seeds, 20)
        same = [Accuracy(measure.outcomes.copy()) for measure in measures]
        difference = compare(measures, same)
        assert (difference.value, difference.low, difference.high, difference.detectable) == (0, 0, 0, 0)
        assert difference.p_value == 1


def test_seeds_that_agree_add_nothing_to_the_images() -> None:
    """And nothing is divided by 0, where images agree too."""
    (a,), (b,) = outcomes(0, 1, 30), outcomes(1, 1, 30)
    one, three = compare([a], [b]), compare([a] * 3, [b] * 3)
    assert (three.low, three.high) == pytest.approx((one.low, one.high))
    assert (one.kind, compare([a] * 2, [b] * 2).kind, three.kind) == ("one seed, images only", "two seeds", "seeds")
    all_right, all_wrong = [Accuracy(np.ones(9))] * 3, [Accuracy(np.zeros(9))] * 3
    assert (compare(all_right, all_wrong).low, compare(all_right, all_wrong).p_value) == (100, 0)
    assert (interval(all_right).low, interval(all_right).high) == (100, 100)


def test_groups_are_drawn_as_a_whole() -> None:
    """Five copies of each image in one group tell no more than the images alone."""
    a, b = outcomes(1, 3, 30, 0.3), outcomes(2, 3, 30)
    many_a, many_b = ([Accuracy(np.tile(measure.outcomes, 5)) for measure in measures] for measures in (a, b))
    names = np.tile([f"drive {number:02d}" for number in range(30)], 5)
    grouped, alone, wrong = compare(many_a, many_b, names), compare(a, b), compare(many_a, many_b)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    assert wrong.high - wrong.low < 0.9 * (alone.high - alone.low)


def test_draws_are_the_same_everywhere() -> None:
    draws = _draws(7)
    assert draws.shape == (1000, 7) and (draws.sum(axis=1) == 7).all()
    assert hashlib.sha256(draws.astype("<i4").tobytes()).hexdigest()[:16] == "5c4d10ee6ac7e67f"
    many = _draws(400)
    assert many.mean() == 1 and many.var() == pytest.approx(1 - 1 / 400, rel=0.02)
    assert np.corrcoef(many.T)[0, 1:].std() == pytest.approx(1000**-0.5, rel=0.2)


def test_detectable_is_found_in_80_percent() -> None:
    a, b = outcomes(1, 5, 100, 0.2), outcomes(2, 5, 100)
    table = np.stack([100.0 * x.outcomes - 100.0 * y.outcomes for x, y in zip(a, b, strict=True)])
    freedom = two_way(table)[1]
    for number in (1, 4):
        difference = compare(a, b, num_comparisons=number)
        error = (difference.high - difference.value) / stats.t.ppf(0.975, freedom)
        power = stats.nct.sf(stats.t.ppf(1 - 0.025 / number, freedom), freedom, difference.detectable / error)
        assert power == pytest.approx(0.8, abs=0.03)


def test_intervals_cover_a_known_difference() -> None:
    """250 cards of 60 images and 3 seeds: seeds, images, and both together make the difference."""
    held = 0
    for card in range(250):
        random = np.random.default_rng(card)
        images, skill = random.normal(0, 1, 60), random.normal(0, 0.2, (2, 3, 1))
        marks = images + skill + random.normal(0, 0.5, (2, 3, 60)) + np.array([0.4, 0.0])[:, None, None]
        a, b = ([Accuracy(row > 0) for row in rows] for rows in marks)
        truth = 100 * np.diff(stats.norm.cdf(np.array([0.0, 0.4]) / (1 + 0.2**2 + 0.5**2) ** 0.5))[0]
        difference = compare(a, b)
        held += difference.low <= truth <= difference.high
    assert 0.92 <= held / 250 <= 0.98


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def difference(value: float, low: float, high: float, kind: str = "seeds") -> Difference:
    return Difference(value, low, high, p_value=0.01, detectable=2.54, kind=kind)


@pytest.mark.parametrize(
    ("shown", "adjusted", "text"),
    [
        (difference(3.08, 1.9, 4.2), 0.05, "better by 3.1 (1.9 … 4.2)"),
        (difference(-3.08, -4.2, -1.9), 0.01, "worse by 3.1 (1.9 … 4.2)"),
        (difference(0.05, 0.01, 0.09), 0.01, "better by 0.05 (0.01 … 0.09)"),
        (
            difference(0.15, -0.8, 1.1),
            0.7,
            "no difference that these data can show (−0.8 … +1.1; they would have shown 2.5)",
        ),
        (
            difference(3.08, 0.01, 6.2),
            0.06,
            "no difference that these data can show (0.0 … +6.2; they would have shown 2.5)",
        ),
        (difference(3.08, 0.01, 6.2), 0.04, "better by 3.08 (0.01 … 6.20)"),
        (difference(3.08, 1.9, 4.2), None, "+3.1 (+1.9 … +4.2): exploratory"),
        (difference(3.08, 1.9, 4.2, "two seeds"), 0.01, "+3.1 (+1.9 … +4.2): two seeds, no verdict"),
        (
            difference(-3.08, -4.2, -1.9, "one seed, images only"),
            None,
            "−3.1 (−4.2 … −1.9): one seed, images only, no verdict",
        ),
    ],
)
def test_sentences(shown: Difference, adjusted: float | None, text: str) -> None:
    assert sentence(shown, adjusted) == text


def test_what_cannot_be_compared_is_refused() -> None:
    a, b = outcomes(0, 3, 10), outcomes(1, 3, 10)
    with pytest.raises(ValueError, match="a has 3 seeds and b 2"):
        compare(a, b[:2])
    with pytest.raises(ValueError, match=r"\('accuracy', 10, ''\), \('accuracy', 10, 'x'\)"):
        compare(a, [Accuracy(measure.outcomes, digest="x") for measure in b])
    with pytest.raises(ValueError, match="'accuracy', 9, .*one set"):
        compare(a, [Accuracy(measure.outcomes[:9]) for measure in b])
    with pytest.raises(ValueError, match="mean_iou.*one kind"):
        compare(a, [MeanIoU(np.ones((10, 2, 3), dtype=int))] * 3)
    with pytest.raises(ValueError, match="one kind"):
        interval([])
    for groups in (np.zeros(10), np.arange(9)):
        with pytest.raises(ValueError, match="each of 10 images needs one, two must differ"):
            interval(a, groups)
