"""Curves: what is drawn is what was logged."""

import math

from mst_transfer.report.collect import collect
from mst_transfer.report.curves import draw_panels, finetune_panels, pretrain_panels
from mst_transfer.report.scalars import Scalars


def curves(panels):
    return {panel.title: panel.curves for panel in panels}


def test_pretrain_curves(runs, tmp_path):
    scalars = collect(runs).runs[0].scalars
    panels = pretrain_panels(scalars, 512)
    drawn = curves(panels)
    assert drawn.pop("Cross-entropy between teacher and student") == {
        "cross-entropy": scalars.series("loss_dino"),
        "teacher entropy": scalars.series("teacher_entropy"),
        "ln 512": ([10, 50], [math.log(512)] * 2),
    }
    assert drawn["Restoring loss"] == {"restoring loss": scalars.series("loss_restoring")}
    assert set(drawn) == {"Restoring loss", "Total loss", "Learning rate", "Teacher momentum", "Masked patches"}
    draw_panels(panels, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_a_measurement_is_drawn_once():
    """Rows of training repeat the newest measurement; the curve has each at its own step."""
    rows = [{"loss": 1.0, "knn_top1": value, "step": step} for step, value in ((3, 20.0), (6, 20.0), (9, 40.0))]
    rows += [{"val/knn_top1": 20.0, "step": 0}, {"val/knn_top1": 40.0, "step": 6}]
    drawn = curves(pretrain_panels(Scalars(tuple(rows)), None))
    assert drawn["k-NN accuracy"] == {"top-1": ([0, 6], [20.0, 40.0])} and set(drawn) == {"Total loss", "k-NN accuracy"}


def test_finetune_curves_put_both_starts_on_the_same_axes(runs):
    found = collect(runs).of("det")
    drawn = curves(finetune_panels("det", found))
    assert set(drawn) == {"Training loss, detection", "box mAP on the validation images"}
    for run in found:
        assert drawn["Training loss, detection"][run.label] == run.scalars.series("loss")
        steps, values = run.scalars.series("coco/bbox_mAP")
        assert drawn["box mAP on the validation images"][run.label] == (steps, [100 * value for value in values])
    assert finetune_panels("det", []) == []
