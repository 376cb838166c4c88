"""Pictures of predictions: colours stand where the labels are."""

import numpy as np
import pytest
from matplotlib import colormaps

from mst_transfer.report.curves import new_figure
from mst_transfer.report.panels import draw_predictions, paint
from mst_transfer.report.predictions import Instances, Prediction, spread

CLASSES = ("disc", "box")
FIRST, LAST = (np.array(colormaps["turbo"](end)[:3]) for end in (0.0, 1.0))


def test_label_map_colours_every_pixel_but_the_ignored():
    labels = np.zeros((6, 9), np.int64)
    labels[:, 3:], labels[:, 6:] = 1, 255
    paint(axes := new_figure(1, 1).subplots(), labels, CLASSES)
    first, last = (image.get_array() for image in axes.images)
    assert (first[:, :3, :3] == FIRST).all() and (last[:, 3:6, :3] == LAST).all()
    for layer, shown in ((first, labels == 0), (last, labels == 1)):
        assert (layer[shown, 3] == 0.6).all() and not layer[~shown].any()
    assert [text.get_text() for text in axes.texts] == ["disc", "box"]


def test_instance_is_tinted_inside_its_mask_and_framed():
    mask = np.zeros((1, 6, 9), bool)
    mask[0, 2:4, 3:7] = True
    found = Instances(np.array([[3.0, 2, 7, 4]]), mask, np.array([1]), np.array([0.87]))
    paint(axes := new_figure(1, 1).subplots(), found, CLASSES)
    (layer,), (box,) = axes.images, axes.patches
    assert (layer.get_array()[mask[0]] == (*LAST, 0.6)).all() and not layer.get_array()[~mask[0]].any()
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (3, 2, 4, 2)
    assert axes.texts[0].get_text() == "box 87"


def test_spread_is_even_and_within():
    assert spread(10, 5) == [1, 3, 5, 7, 9]
    assert spread(3, 5) == [0, 1, 2]


@pytest.mark.parametrize("task", ["det", "seg"])
def test_figure_is_written(task, tmp_path):
    mask = np.zeros((60, 90), bool)
    mask[10:50, 10:50] = True
    answer = mask.astype(np.int64)
    if task == "det":
        answer = Instances(np.array([[10.0, 10, 50, 50]]), mask[None], np.array([0]), np.array([0.5]))
    items = [Prediction(f"{k}.jpg", np.zeros((60, 90, 3), np.uint8), answer, answer) for k in range(2)]
    draw_predictions(CLASSES, {"MST": items, "random": items}, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
