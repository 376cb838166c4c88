"""A dry run sees the largest images that training will."""

import pytest

from mst_transfer.engine.plan.largest_shape import at_largest_shape, largest_images


def largest(*steps):
    dataset = dict(pipeline=list(steps))
    at_largest_shape(dict(type="RepeatDataset", dataset=dataset))
    return dataset["pipeline"]


def test_random_sizes_become_the_largest():
    choice = dict(type="RandomChoiceResize", scales=[(480, 1333), (800, 1333), (640, 1333)], keep_ratio=True)
    assert largest(choice) == [dict(choice, scales=[(800, 1333)])]
    ratio = dict(type="mmcv.RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0))
    assert largest(ratio) == [dict(ratio, ratio_range=(2.0, 2.0))]
    scales = dict(type="RandomResize", scale=[(1333, 640), (1333, 800)], keep_ratio=True)
    assert largest(scales) == [dict(scales, scale=[(1333, 800), (1333, 800)])]
    crop = dict(type="RandomCrop", crop_size=(512, 512))
    assert largest(crop) == [crop]


def test_the_branch_that_ends_largest_is_taken():
    small = [
        dict(type="RandomChoiceResize", scales=[(600, 4200)]),
        dict(type="RandomChoiceResize", scales=[(480, 1333)]),
    ]
    large = [dict(type="RandomChoiceResize", scales=[(480, 1333), (800, 1333)])]
    (step,) = largest(dict(type="RandomChoice", transforms=[small, large]))
    assert step["transforms"] == [[dict(type="RandomChoiceResize", scales=[(800, 1333)])]]


class Images:
    """Images of the given sizes, with one step of resizing."""

    def __init__(self, sizes, scale=None):
        self.sizes = sizes
        self.pipeline = type("Compose", (), dict(transforms=[type("Resize", (), dict(scale=scale))()]))()

    def __len__(self):
        return len(self.sizes)

    def get_data_info(self, index):
        return dict(zip(("width", "height"), self.sizes[index], strict=True)) if self.sizes[index] else {}


def test_the_largest_after_resizing_come_first():
    sizes = [(100, 100), (640, 480), (480, 640), (2000, 100), (1333, 800)]
    assert largest_images(Images(sizes), 2) == [4, 1]
    assert largest_images(Images(sizes, scale=(1333, 800)), 3) == [4, 1, 2]
    assert largest_images(Images([(10, 10), (20, 20)]), 5) == [1, 0, 1, 0, 1]
    assert largest_images(Images([None, None]), 3) == [0, 1, 0]
    with pytest.raises(ValueError, match="no image left after its filters"):
        largest_images(Images([]), 1)
