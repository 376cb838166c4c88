"""Scenes: the same numbers give the same picture, and the labels agree with one another."""

import numpy as np
import pytest

from mst_transfer.datasets.sample.scenes import (
    CLASSES,
    OBJECT_CLASSES,
    PALETTE,
    STUFF_CLASSES,
    draw_scene,
    scene_generator,
)
from mst_transfer.datasets.sample.textures import TEXTURES, draw_patch, load_texture


def scene(seed=0, split="coco/train", index=0, size=128):
    return draw_scene(scene_generator(seed, split, index), size)


def test_shapes_and_ranges():
    drawn = scene(size=96)
    assert drawn.image.shape == (96, 96, 3) and drawn.image.dtype == np.uint8
    assert drawn.semantic.shape == (96, 96) and drawn.semantic.dtype == np.uint8
    assert drawn.masks.shape == (len(drawn.labels), 96, 96) and drawn.masks.dtype == bool
    assert len(PALETTE) == len(CLASSES) == len(set(PALETTE))


@pytest.mark.parametrize("index", range(12))
def test_semantic_map_agrees_with_masks_at_every_pixel(index):
    drawn = scene(index=index)
    for row in range(128):
        for column in range(128):
            owners = [k for k in range(len(drawn.labels)) if drawn.masks[k, row, column]]
            assert len(owners) <= 1, "masks overlap"
            value = int(drawn.semantic[row, column])
            if owners:
                assert CLASSES[value] == OBJECT_CLASSES[drawn.labels[owners[0]]]
            else:
                assert value < len(STUFF_CLASSES)


def test_same_key_same_scene_other_key_other_scene():
    first, again = scene(), scene()
    assert np.array_equal(first.image, again.image) and np.array_equal(first.masks, again.masks)
    for other in (scene(seed=1), scene(split="coco/val"), scene(index=1)):
        assert not np.array_equal(first.image, other.image)


def test_every_object_stays_recognisable():
    for index in range(40):
        assert all(mask.sum() >= 60 for mask in scene(index=index).masks)


def test_every_class_occurs_often():
    counts = np.zeros(len(CLASSES), dtype=int)
    for index in range(40):
        counts[np.unique(scene(index=index).semantic)] += 1
    assert (counts >= 10).all(), dict(zip(CLASSES, counts, strict=True))


def test_pictures_stay_what_they_are():
    """Golden values: labels exactly; colours of the four quarters within what processors round differently."""
    drawn = scene(size=64)
    assert drawn.labels == (0, 0, 4, 0) and [int(mask.sum()) for mask in drawn.masks] == [49, 217, 233, 298]
    assert np.bincount(drawn.semantic.ravel(), minlength=9).tolist() == [887, 630, 0, 1782, 564, 0, 0, 0, 233]
    quarters = drawn.image.reshape(2, 32, 2, 32, 3).mean((1, 3))
    expected = [[[132.5, 114.2, 108.2], [170.0, 154.2, 108.2]], [[143.4, 121.8, 158.6], [153.7, 130.5, 169.4]]]
    np.testing.assert_allclose(quarters, expected, atol=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "train", 0), r"split must be one of .*'coco/train'.* got 'train'"),
        ((-1, "photos", 0), "seed must be"),
        ((0, "photos", -1), "index must be"),
        ((0, "photos", 0, 8), "at least 32 pixels, got 8"),
    ],
)
def test_wrong_key_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        scene(*arguments)


@pytest.mark.parametrize("name", TEXTURES)
def test_texture_lies_inside_its_photograph_and_has_structure(name):
    x0, y0, x1, y1 = TEXTURES[name].box
    assert load_texture(name).shape == (y1 - y0, x1 - x0, 3)
    patch = draw_patch(scene_generator(0, "photos", 0), name, 40, 60)
    assert patch.shape == (40, 60, 3) and patch.dtype == np.uint8
    assert patch.std() > 3
