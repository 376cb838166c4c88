"""Rows of numbers for photometric plans: as long whatever is drawn, and with room for every blur."""

import numpy as np
import pytest

from pretrain.data.augment import CropPlan, MultiCropOptions, draw_crops
from pretrain.data.image_ops import box_blur_kernel
from pretrain.data.photometric_plan import HUE, NUM_COLUMNS, as_rows, blur_radius, without_photometry


@pytest.mark.parametrize("largest", [0.1, 0.5, 1.37, 2.0, 4.0])
def test_radius_has_room_for_every_blur(largest: float) -> None:
    radius = blur_radius(MultiCropOptions(blur_sigma=(0.01, largest)))
    sigmas = np.arange(1, round(largest * 100) + 1) / 100
    assert max(len(box_blur_kernel(round(float(sigma), 2))) // 2 for sigma in sigmas) == radius


def test_no_room_without_blur() -> None:
    options = MultiCropOptions(global_blur_probs=(0.0, 0.0), local_blur_prob=0.0)
    plans = draw_crops(options, 300, 400, seed=0, epoch=0, index=0)
    assert blur_radius(options) == 0 and as_rows(plans, 0).shape == (10, NUM_COLUMNS + 1)


def test_rows_are_as_long_whatever_is_drawn() -> None:
    options = MultiCropOptions()
    radius = blur_radius(options)
    for index in range(50):
        plans = draw_crops(options, 300, 400, seed=0, epoch=0, index=index)
        rows = as_rows(plans, radius)
        assert rows.shape == (10, NUM_COLUMNS + radius + 1) and rows.dtype == np.float32
        taps = rows[:, NUM_COLUMNS:]
        np.testing.assert_allclose(2 * taps.sum(1) - taps[:, 0], 1, atol=1e-6)  # each sums to one
    assert as_rows([], radius).shape == (0, NUM_COLUMNS + radius + 1)


def test_geometry_stays_and_photometry_goes() -> None:
    jitter = (("hue", -0.1), ("contrast", 1.2))
    plan = CropPlan(1, 2, 30, 40, 16, True, jitter, True, 1.5, 128)
    bare = without_photometry(plan)
    assert bare[:6] == plan[:6] and bare == without_photometry(bare)
    row, bare_row = as_rows([plan, bare], 6)
    assert row[HUE] == 256 - 25 and bare_row[HUE] == -1 and not np.array_equal(row, bare_row)
