"""Scenes: the same numbers give the same picture, and the labels agree with one another."""

import numpy as np
import pytest

from mst_transfer.datasets.sample.scenes import CLASSES, OBJECT_CLASSES, STUFF_CLASSES, draw_scene, scene_generator
from mst_transfer.datasets.sample.textures import PATTERNS, PHOTOGRAPHS, draw_patch, draw_pattern


def scene(seed=0, split="coco/train", index=0, size=96):
    return draw_scene(scene_generator(seed, split, index), size, split == "photos")


@pytest.mark.parametrize("index", range(12))
def test_semantic_map_agrees_with_masks_at_every_pixel(index):
    drawn = scene(index=index)
    assert drawn.masks.sum(axis=0).max() <= 1, "masks overlap"
    for mask, label in zip(drawn.masks, drawn.labels, strict=True):
        assert {CLASSES[value] for value in drawn.semantic[mask]} == {OBJECT_CLASSES[label]}
    assert drawn.semantic[~drawn.masks.any(axis=0)].max() < len(STUFF_CLASSES)


def test_same_key_same_scene_other_key_other_scene():
    first, again = scene(), scene()
    assert np.array_equal(first.image, again.image) and np.array_equal(first.masks, again.masks)
    for other in (scene(seed=1), scene(split="coco/val"), scene(index=1)):
        assert not np.array_equal(first.image, other.image)


def test_every_class_occurs_often_and_every_object_stays_recognisable():
    counts = np.zeros(len(CLASSES), dtype=int)
    for drawn in (scene(index=index) for index in range(40)):
        assert all(mask.sum() >= 55 for mask in drawn.masks)
        counts[np.unique(drawn.semantic)] += 1
    assert (counts >= 10).all(), dict(zip(CLASSES, counts, strict=True))


def test_a_photo_shows_one_class_from_near_by():
    photos, scenes = ([scene(split=split, index=index) for index in range(30)] for split in ("photos", "coco/train"))
    assert all(len(set(photo.labels)) == 1 for photo in photos)
    assert {photo.labels[0] for photo in photos} == set(range(len(OBJECT_CLASSES)))
    assert max(len(set(drawn.labels)) for drawn in scenes) > 2
    covered = [np.mean([drawn.masks.any(axis=0).mean() for drawn in group]) for group in (photos, scenes)]
    assert covered[0] > 1.3 * covered[1]


def test_colours_tell_nothing():
    """Mean colours of a class differ less between classes than within one, as far as 60 scenes show."""
    colours = {label: [] for label in range(len(OBJECT_CLASSES))}
    for drawn in (scene(index=index) for index in range(60)):
        for mask, label in zip(drawn.masks, drawn.labels, strict=True):
            colours[label].append(drawn.image[mask].mean(axis=0))
    means = np.array([np.mean(values, axis=0) for values in colours.values()])
    within = np.mean([np.std(values, axis=0) for values in colours.values()])
    assert means.std(axis=0).max() < 0.5 * within


def test_a_larger_scene_shows_the_same():
    small, large = scene(size=96), scene(size=192)
    assert small.labels == large.labels
    assert (small.semantic == large.semantic[::2, ::2]).mean() > 0.97


def test_pictures_stay_what_they_are():
    """Golden values: labels exactly; colours of the four quarters within what processors round differently."""
    drawn = scene(size=64)
    assert drawn.labels == (0, 4, 4, 3) and [int(mask.sum()) for mask in drawn.masks] == [380, 343, 268, 209]
    assert np.bincount(drawn.semantic.ravel(), minlength=len(CLASSES)).tolist() == [
        603,
        2293,
        0,
        0,
        380,
        0,
        0,
        209,
        611,
        0,
    ]
    quarters = drawn.image.reshape(2, 32, 2, 32, 3).mean((1, 3))
    expected = [
        [[140.67, 156.58, 165.34], [146.63, 195.83, 193.81]],
        [[143.99, 185.91, 176.28], [142.55, 185.63, 187.14]],
    ]
    np.testing.assert_allclose(quarters, expected, atol=0.5)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_patch_has_structure_at_every_size(name):
    for height, width, unit in ((40, 60, 1.0), (200, 150, 4.0)):
        patch = draw_patch(scene_generator(0, "photos", 0), name, height, width, unit)
        assert patch.shape == (height, width, 3) and patch.std() > 10


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_has_two_colours_and_repeats_or_not(name):
    y, x = np.mgrid[0:96, 0:96].astype(np.float32)
    pattern = draw_pattern(scene_generator(0, "photos", 1), name, x, y).reshape(-1, 3)
    low, high = pattern.min(axis=0), pattern.max(axis=0)
    ends = np.minimum(np.abs(pattern - low).max(axis=1), np.abs(pattern - high).max(axis=1)) < 5
    assert np.abs(high - low).max() > 30 and 0.2 < ends.mean() <= 1
