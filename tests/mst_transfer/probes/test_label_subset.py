"""Nested subsets of the training images."""

import pytest

from mst_transfer.probes.label_subset import label_subset


@pytest.mark.parametrize(
    ("labels", "number"),
    [(4, 4), ("4", 4), (200, 200), ("100%", 200), ("10%", 20), ("0.1%", 1), ("2.5%", 5), ("1.1%", 3), ("7%", 14)],
)
def test_numbers_and_shares(labels, number):
    subset = label_subset(200, labels, seed=0)
    assert len(subset) == len(set(subset.tolist())) == number and 0 <= subset.min() and subset.max() < 200


@pytest.mark.parametrize("number", [7, 14, 56, 112, 880, 117266])
def test_all_are_all_whatever_their_number(number):
    assert len(label_subset(number, "100%", seed=0)) == number
    assert len(label_subset(number, "0.0000001%", seed=0)) == 1


def test_a_smaller_subset_begins_a_larger_one_and_seeds_differ():
    for seed in (0, 1):
        order = label_subset(50, "100%", seed).tolist()
        assert sorted(order) == list(range(50))
        for labels in (1, 7, "30%"):
            subset = label_subset(50, labels, seed).tolist()
            assert subset == order[: len(subset)]
    assert label_subset(50, 10, 0).tolist() != label_subset(50, 10, 1).tolist()


def test_every_image_is_as_likely():
    """Of 400 seeds each of 20 images is among the first 5 about 100 times."""
    times = [0] * 20
    for seed in range(400):
        for image in label_subset(20, 5, seed):
            times[image] += 1
    assert all(65 < number < 135 for number in times), times


@pytest.mark.parametrize("labels", [0, -1, 11, "11", "0%", "101%", "2.5", "", "ten", "10 images", "١"])
def test_others_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels = .* must be a number of training images in 1 … 10 .*10%"):
        label_subset(10, labels, 0)
