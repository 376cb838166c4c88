"""Curves: what is drawn is what was logged."""

import math

import pytest

from mst_transfer.report import curves
from mst_transfer.report.collect import Run, collect
from mst_transfer.report.scalars import Scalars


@pytest.fixture
def figures(monkeypatch):
    """Figures that were drawn, so that their lines can be read."""
    made, original = [], curves.new_figure

    def keep(*size):
        made.append(original(*size))
        return made[-1]

    monkeypatch.setattr(curves, "new_figure", keep)
    return made


def lines(figure):
    return {
        (axes.get_title(loc="left"), line.get_label()): (list(line.get_xdata()), list(line.get_ydata()))
        for axes in figure.axes
        for line in axes.lines
    }


def test_pretrain_curves(runs, figures, tmp_path):
    scalars = collect(runs).pretrain.scalars
    assert curves.draw_pretrain_curves(scalars, 512, tmp_path / "curves.png")
    drawn = lines(figures[0])
    title = "Cross-entropy between teacher and student"
    assert drawn[title, "cross-entropy"] == scalars.series("loss_dino")
    assert drawn[title, "teacher entropy"] == scalars.series("teacher_entropy")
    assert set(drawn[title, "ln 512"][1]) == {math.log(512)}
    assert drawn["Restoring loss", "restoring loss"] == scalars.series("loss_restoring")
    momentum = [line for axes in figures[0].axes for line in axes.lines if list(line.get_ydata()) == [0.996] * 5]
    assert len(momentum) == 1
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_panels_of_what_was_not_logged_are_left_out(figures, tmp_path):
    scalars = Scalars(train=({"loss": 1.0, "step": 1},), val=({"knn_top1": 30.0, "step": 1},))
    assert curves.draw_pretrain_curves(scalars, None, tmp_path / "curves.png")
    assert {title for title, _ in lines(figures[0])} == {"Total loss", "k-NN accuracy"}


def test_a_measurement_is_drawn_once(figures, tmp_path):
    """Rows of training repeat the newest measurement; the curve has each at its own step."""
    train = tuple({"loss": 1.0, "knn_top1": value, "step": step} for step, value in ((3, 20.0), (6, 20.0), (9, 40.0)))
    val = ({"val/knn_top1": 20.0, "step": 0}, {"val/knn_top1": 40.0, "step": 6})
    assert curves.draw_pretrain_curves(Scalars(train, val), None, tmp_path / "curves.png")
    drawn = [points for (title, _), points in lines(figures[0]).items() if title == "k-NN accuracy"]
    assert drawn == [([0, 6], [20.0, 40.0])]


def test_finetune_curves_put_both_starts_on_the_same_axes(runs, figures, tmp_path):
    found = collect(runs).runs["det"]
    assert curves.draw_finetune_curves("det", found, tmp_path / "det.png")
    drawn = lines(figures[0])
    for label, run in zip(("MST", "random"), found, strict=True):
        assert drawn["Training loss, detection", label] == run.scalars.series("loss")
        steps, values = run.scalars.series("coco/bbox_mAP")
        assert drawn["box mAP on the validation images", label] == (steps, [100 * value for value in values])
    assert len({line.get_color() for line in figures[0].axes[0].lines}) == 2


def test_nothing_logged_draws_nothing(tmp_path):
    assert not curves.draw_pretrain_curves(Scalars(), 512, tmp_path / "none.png")
    assert not curves.draw_finetune_curves("seg", [Run(tmp_path, "seg", "mst")], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
