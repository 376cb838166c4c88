"""Reading runs: logs in the order of steps, whatever is missing named with its command, the table."""

import shutil

import pytest

from mst_transfer.report.collect import collect
from mst_transfer.report.scalars import read_scalars
from mst_transfer.report.table import as_markdown, build_table


def test_complete_folder(runs):
    found = collect(runs)
    assert found.missing == []
    titles = ["Pre-training", "Detection from MST", "Detection from random"]
    assert [run.title for run in found.runs] == [*titles, "Segmentation from MST", "Segmentation from random"]
    assert found.runs[0].results["seed"] == 7 and found.runs[0].results["backbone"]["patch_size"] == 8
    assert [picture.title for picture in found.pictures] == ["Importance & mask"]
    assert found.stages == [("pre-training", 4.2, "bash tools/pretrain.sh CONFIG 1")]
    assert found.runs[1].checkpoint == runs / "det_mst" / "epoch_2.pth"  # found although the folder has moved
    assert found.runs[3].scalars.series("mIoU") == ([10, 20], [30.625, 61.25])
    assert found.runs[3].scalars.series("not logged") == ([], [])


def train(*steps, loss=1.0):
    return [{"loss": loss, "step": step} for step in steps]


# what each start of a run logged, and the curves of it all: steps and values
LOGS = {
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


@pytest.mark.parametrize(("starts", "curves"), LOGS.values(), ids=LOGS)
def test_logs_of_resumed_runs_are_one(tmp_path, write_log, starts, curves):
    for hour, rows in enumerate(starts):
        path = write_log(tmp_path, f"20250101_1{hour}0000", rows)
    path.write_text(path.read_text() + '{"loss": 2.0, "st')  # the run was killed
    scalars = read_scalars(tmp_path)
    assert {name: scalars.series(name) for name in curves} == curves


@pytest.mark.parametrize(
    ("gone", "command"),
    [
        ("pretrain", "tools/pretrain.sh"),
        ("pretrain/teacher.safetensors", "tools/pretrain.sh"),
        ("pretrain/pictures/index.json", "pretrain.pictures"),
        ("pretrain/pictures/mask.png", "pretrain.pictures"),
        ("det_random", "mst train CONFIG"),
        ("seg_mst/results.json", "mst train"),
        ("seg_mst/run_config.json", "mst train"),
        ("det_mst/20250101_120000", "mst train"),
    ],
)
def test_what_is_gone_is_named_with_its_command(runs, gone, command):
    path = runs / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    missing = collect(runs).missing
    assert missing and command in missing[0].command and missing[0].reason == "not there"
    assert str(path) in str(missing[0]).replace("<time>", "20250101_120000")


def test_no_advice_begins_a_run_among_the_files_of_another(runs):
    """What a command would find in its work dir is gone on with, or there is nothing."""
    for gone in ("seg_mst/results.json", "pretrain/teacher.safetensors", "seg_random/epoch_2.pth"):
        (runs / gone).unlink()
    (runs / "pretrain" / "epoch_5.pth").touch()
    shutil.rmtree(runs / "det_mst")
    commands = {item.path.relative_to(runs).as_posix(): item.command for item in collect(runs).missing}
    assert commands == {
        "pretrain/teacher.safetensors": f"bash tools/pretrain.sh CONFIG 1 --work-dir {runs}/pretrain --resume",
        "seg_mst/results.json": f"mst train CONFIG --work-dir {runs}/seg_mst --resume",
        "seg_random/last_checkpoint": f"mst train CONFIG --work-dir {runs}/seg_random",
        "det_mst": f"mst train CONFIG --work-dir {runs}/det_mst "
        f"--cfg-options model.backbone.checkpoint={runs}/pretrain/teacher.safetensors",
    }


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_broken_results_are_named(runs, content):
    (runs / "det_mst" / "results.json").write_text(content)
    assert "not readable" in str(collect(runs).missing[0])


def test_table(runs):
    """A dash for what was not measured; other starts are columns."""
    shutil.rmtree(runs / "seg_random")
    shutil.copytree(runs / "seg_mst", runs / "seg_dino")
    results = runs / "seg_dino" / "results.json"
    results.write_text(results.read_text().replace("61.25", "-1"))
    table = build_table(collect(runs))
    assert table[0] == ["task", "metric", "MST", "random", "dino", "gain of MST over random", "minutes"]
    assert table[1:] == [
        ["detection", "box mAP", "31.2", "20.4", "–", "+10.8", "1.3 / 1.3 / –"],
        ["detection", "mask mAP", "25.0", "26.0", "–", "-1.0", "1.3 / 1.3 / –"],
        ["segmentation", "mIoU", "61.2", "–", "–", "–", "1.3 / – / 1.3"],
        ["segmentation", "pixel accuracy", "80.0", "–", "80.0", "–", "1.3 / – / 1.3"],
    ]
    lines = as_markdown(table).splitlines()
    assert len({len(line) for line in lines}) == 1, "columns are aligned"
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == table[1]
