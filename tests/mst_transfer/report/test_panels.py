"""Pictures of predictions: colours stand where the labels are."""

import numpy as np
import pytest

from mst_transfer.report.panels import agreement, draw_predictions, paint_instances, paint_label_map
from mst_transfer.report.predictions import Instance, Prediction, Predictions, spread

PALETTE = ((255, 0, 0), (0, 255, 0))
CLASSES = ("disc", "box")


def black(height=60, width=90):
    return np.zeros((height, width, 3), np.uint8)


def test_label_map_colours_every_pixel_but_the_ignored():
    labels = np.zeros((60, 90), np.int64)
    labels[:, 30:] = 1
    labels[:, 60:] = 255
    painted = paint_label_map(black(), labels, PALETTE)
    assert painted.shape == (240, 360, 3)
    assert (painted[:, :120] == (178, 0, 0)).all()
    assert (painted[:, 120:240] == (0, 178, 0)).all()
    assert (painted[:, 240:] == 0).all()


def test_instance_is_tinted_inside_its_mask_and_framed():
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:70] = True
    instance = Instance((30.0, 20.0, 70.0, 40.0), mask, 1, 0.87)
    painted = paint_instances(black(), [instance], CLASSES, PALETTE)
    assert (painted[120, 200] == (0, 127, 0)).all()
    assert (painted[80, 200] == PALETTE[1]).all(), "the box's upper edge"
    assert not painted[200:, :].any() and not painted[:60].any()
    assert paint_instances(black(), [], CLASSES, PALETTE).sum() == 0


def test_input_image_is_not_changed():
    for side in (60, 500):
        image = black(side, side)
        paint_label_map(image, np.zeros((side, side), np.int64), PALETTE)
        assert not image.any()


def test_agreement_leaves_out_ignored_pixels():
    truth = np.array([[0, 1, 255, 1]])
    assert agreement(np.array([[0, 0, 1, 1]]), truth) == pytest.approx(2 / 3)


def test_spread_is_even_and_within():
    assert spread(10, 5) == [1, 3, 5, 7, 9]
    assert spread(3, 5) == [0, 1, 2]
    assert spread(150, 3) == [25, 75, 125]


@pytest.mark.parametrize("task", ["det", "seg"])
def test_figure_is_written(task, tmp_path):
    mask = np.zeros((60, 90), bool)
    mask[10:50, 10:50] = True
    answer = [Instance((10, 10, 50, 50), mask, 0, 0.5)] if task == "det" else mask.astype(np.int64)
    items = tuple(Prediction(f"{k}.jpg", black(), answer, answer) for k in range(2))
    by_start = {name: Predictions(CLASSES, PALETTE, items) for name in ("MST", "random")}
    draw_predictions(task, by_start, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
