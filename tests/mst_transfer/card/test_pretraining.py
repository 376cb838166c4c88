"""Curves of a pre-training: what is drawn is what was logged, whatever starts the run had."""

import json
import math
from pathlib import Path

import pytest

from mst_transfer.card.plots import Line
from mst_transfer.card.pretraining import MAX_POINTS, panels, read_pretraining, read_scalars


def curves(rows: list[dict], out_dim: int | None = None) -> dict[str, list[Line]]:
    return {title: lines for title, _, lines in panels(rows, out_dim)}


def test_a_work_directory(pretraining: Path) -> None:
    found = read_pretraining(pretraining)
    assert found["name"] == pretraining and [one["path"].name for one in found["pictures"]] == ["mask.png"]
    drawn = {title: lines for title, _, lines in found["panels"]}
    steps = (10, 20, 30, 40, 50)
    cross, teacher, bound = drawn.pop("Cross-entropy between teacher and student")
    assert cross == Line("cross-entropy", steps, (5.0, 4.0, 3.0, 2.0, 1.0), style=0)
    assert teacher == Line("teacher entropy", steps, (5.5,) * 5, style=1)
    assert bound == Line("ln 512", (10, 50), [math.log(512)] * 2, style=2)
    assert drawn["Total loss"] == [Line("loss", steps, (6.0, 5.0, 4.0, 3.0, 2.0))]
    assert set(drawn) == {"Total loss", "Learning rate"}


def test_what_is_not_there(tmp_path: Path) -> None:
    assert read_pretraining(tmp_path) == dict(name=tmp_path, panels=[], pictures=[])
    with pytest.raises(FileNotFoundError, match="work directory of a pre-training"):
        read_pretraining(tmp_path / "nothing")


def test_a_measurement_is_drawn_once() -> None:
    """Rows of training repeat the newest measurement; the curve has each at its own step."""
    rows = [{"loss": 1.0, "knn_top1": value, "step": step} for step, value in ((3, 20.0), (6, 20.0), (9, 40.0))]
    rows += [{"val/knn_top1": 20.0, "step": 0}, {"val/knn_top1": 40.0, "step": 6}]
    drawn = curves(rows)
    assert drawn["k-NN accuracy"] == [Line("top-1", (0, 6), (20.0, 40.0))] and set(drawn) == {
        "Total loss",
        "k-NN accuracy",
    }


def test_long_curves_are_thinned_evenly() -> None:
    (line,) = curves([{"loss": float(step), "step": step} for step in range(MAX_POINTS * 5 // 2)])["Total loss"]
    assert MAX_POINTS / 2 < len(line.x) <= MAX_POINTS
    assert line.x == tuple(range(0, MAX_POINTS * 5 // 2, 3)) and line.y == tuple(map(float, line.x))


def train(*steps: int, loss: float = 1.0) -> list[dict]:
    return [{"loss": loss, "step": step} for step in steps]


# what each start of a run logged, and the curves of it all: steps and values
LOGS: dict[str, tuple[list, dict]] = {
    "a resumed run replaces what it repeats": (
        [[*train(10, 20, 30), {"mIoU": 1.0, "step": 30}], [*train(30, 40, loss=2.0), {"mIoU": 2.0, "step": 40}]],
        dict(loss=([10, 20, 30, 40], [1.0, 1.0, 2.0, 2.0]), mIoU=([40], [2.0])),
    ),
    "a run started again replaces all": ([train(10, 20, 30), train(10, loss=2.0)], dict(loss=([10], [2.0]))),
    # 118 steps an epoch, logged every 50; the run is killed after validation 2 and resumed from 1
    "validations stand at their own step": (
        [
            [*train(50, 100), {"mIoU": 1.0, "step": 118}, *train(168, 218), {"mIoU": 2.0, "step": 236}],
            [*train(168), {"mIoU": 3.0, "step": 236}],
        ],
        dict(mIoU=([118, 236], [1.0, 3.0]), loss=([50, 100, 168], [1.0] * 3)),
    ),
    "a validation that comes again before a logged step counts once": (
        [[*train(50), {"mIoU": 1.0, "step": 60}], [{"mIoU": 2.0, "step": 60}, *train(100)]],
        dict(mIoU=([60], [2.0])),
    ),
}


@pytest.mark.parametrize(("starts", "expected"), LOGS.values(), ids=LOGS)
def test_logs_of_resumed_runs_are_one(tmp_path: Path, starts: list, expected: dict) -> None:
    for hour, rows in enumerate(starts):
        path = tmp_path / f"20250101_1{hour}0000" / "vis_data" / "scalars.json"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.write_text(path.read_text() + '{"loss": 2.0, "st')  # the run was killed
    rows = read_scalars(tmp_path)
    for name, (steps, values) in expected.items():
        found = [row for row in rows if name in row]
        assert [row["step"] for row in found] == steps and [row[name] for row in found] == values
