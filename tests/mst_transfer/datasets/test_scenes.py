"""Scenes: the same numbers give the same picture, and the labels agree with one another."""

import numpy as np
import pytest

from mst_transfer.datasets.sample.scenes import CLASSES, OBJECT_CLASSES, STUFF_CLASSES, draw_scene, scene_generator
from mst_transfer.datasets.sample.textures import TEXTURES, draw_patch, load_texture


def scene(seed=0, split="coco/train", index=0, size=128):
    return draw_scene(scene_generator(seed, split, index), size)


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
        assert all(mask.sum() >= 60 for mask in drawn.masks)
        counts[np.unique(drawn.semantic)] += 1
    assert (counts >= 10).all(), dict(zip(CLASSES, counts, strict=True))


def test_pictures_stay_what_they_are():
    """Golden values: labels exactly; colours of the four quarters within what processors round differently."""
    drawn = scene(size=64)
    assert drawn.labels == (0, 0, 4, 0) and [int(mask.sum()) for mask in drawn.masks] == [49, 217, 233, 298]
    assert np.bincount(drawn.semantic.ravel(), minlength=9).tolist() == [887, 630, 0, 1782, 564, 0, 0, 0, 233]
    quarters = drawn.image.reshape(2, 32, 2, 32, 3).mean((1, 3))
    expected = [[[132.5, 114.2, 108.2], [170.0, 154.2, 108.2]], [[143.4, 121.8, 158.6], [153.7, 130.5, 169.4]]]
    np.testing.assert_allclose(quarters, expected, atol=0.5)


@pytest.mark.parametrize("name", TEXTURES)
def test_texture_lies_inside_its_photograph_and_has_structure(name):
    x0, y0, x1, y1 = TEXTURES[name].box
    assert load_texture(name).shape == (y1 - y0, x1 - x0, 3)
    patch = draw_patch(scene_generator(0, "photos", 0), name, 40, 60)
    assert patch.shape == (40, 60, 3) and patch.dtype == np.uint8
    assert patch.std() > 3
