"""Reading runs: logs in the order of steps, whatever is missing named with its command."""

import shutil

import pytest

from mst_transfer.report.collect import Stage, collect
from mst_transfer.report.scalars import read_scalars
from mst_transfer.report.table import as_markdown, build_table


def test_complete_folder(runs):
    found = collect(runs)
    assert found.missing == []
    assert [run.label for run in found.runs["det"]] == ["MST", "random"]
    assert found.pretrain.results["seed"] == 7
    assert found.pretrain.results["backbone"]["patch_size"] == 8
    assert [picture.title for picture in found.pictures] == ["Importance & mask"]
    assert found.stages == [Stage("pre-training", 4.2, "bash tools/pretrain.sh CONFIG 1")]
    mst = found.runs["det"][0]
    assert mst.checkpoint == runs / "det_mst" / "epoch_2.pth"  # found although the folder has moved
    assert found.runs["det"][1].load_report == "random initialisation"
    assert mst.load_report.splitlines() == [
        "backbone weights from teacher.safetensors",
        "  loaded        77",
        "  resized        1  pos_embed 12x12 -> 16x16",
    ]


def test_validation_rows_get_the_step_of_the_training_so_far(runs):
    scalars = collect(runs).runs["seg"][0].scalars
    assert scalars.series("mIoU") == ([10, 20], [30.625, 61.25])
    assert scalars.series("loss")[0] == [5, 10, 15, 20]
    assert scalars.series("not logged") == ([], [])


def train(*steps, loss=1.0):
    return [{"loss": loss, "step": step} for step in steps]


# what each start of a run logged, and the curves of it all: steps and values
LOGS = {
    "a resumed run replaces what it repeats": (
        [[*train(10, 20, 30), {"mIoU": 1.0}], [*train(30, 40, loss=2.0), {"mIoU": 2.0}]],
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
        write_log(tmp_path, f"20250101_1{hour}0000", rows)
    scalars = read_scalars(tmp_path)
    assert {name: scalars.series(name) for name in curves} == curves


def test_an_unfinished_last_line_is_passed_over(tmp_path, write_log):
    path = write_log(tmp_path, "20250101_100000", train(10))
    path.write_text(path.read_text() + '{"loss": 2.0, "st')
    assert read_scalars(tmp_path).series("loss") == ([10], [1.0])


@pytest.mark.parametrize(
    ("gone", "command"),
    [
        ("pretrain", "tools/pretrain.sh"),
        ("pretrain/teacher.safetensors", "tools/pretrain.sh"),
        ("pretrain/pictures/index.json", "pretrain.pictures"),
        ("pretrain/pictures/mask.png", "pretrain.pictures"),
        ("det_random", "mst train CONFIG"),
        ("seg_mst/results.json", "mst train"),
        ("seg_mst/last_checkpoint", "mst train"),
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
    assert missing and command in missing[0].command
    named = str(missing[0]).replace("<time>", "20250101_120000")
    assert str(path) in named
    assert "not there" in str(missing[0])


def test_no_advice_begins_a_run_among_the_files_of_another(runs):
    """What a command would find in its work dir is gone on with, or there is nothing."""
    for gone in ("seg_mst/results.json", "pretrain/teacher.safetensors"):
        (runs / gone).unlink()
    (runs / "pretrain" / "epoch_5.pth").touch()
    shutil.rmtree(runs / "det_mst")
    commands = {item.path.relative_to(runs).as_posix(): item.command for item in collect(runs).missing}
    assert commands == {
        "pretrain/teacher.safetensors": f"bash tools/pretrain.sh CONFIG 1 --work-dir {runs}/pretrain --resume",
        "seg_mst/results.json": f"mst train CONFIG --work-dir {runs}/seg_mst --resume",
        "det_mst": f"mst train CONFIG --work-dir {runs}/det_mst "
        f"--cfg-options model.backbone.checkpoint={runs}/pretrain/teacher.safetensors",
    }


def test_broken_results_are_named(runs):
    (runs / "det_mst" / "results.json").write_text("{")
    assert "not JSON" in str(collect(runs).missing[0])


def test_table(runs):
    rows = build_table(collect(runs))
    assert [(row.task, row.metric, round(row.gain, 3)) for row in rows] == [
        ("detection", "box mAP", 10.8),
        ("detection", "mask mAP", -1.0),
        ("segmentation", "mIoU", 10.75),
        ("segmentation", "pixel accuracy", 4.5),
    ]
    text = as_markdown(rows)
    assert len({len(line) for line in text.splitlines()}) == 1, "columns are aligned"
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]] == [
        "detection",
        "box mAP",
        "31.2",
        "20.4",
        "+10.8",
        "1.3 / 1.3",
    ]


def test_what_was_not_measured_is_a_dash_and_other_starts_are_columns(runs):
    shutil.rmtree(runs / "seg_random")
    shutil.copytree(runs / "seg_mst", runs / "seg_dino")
    results = runs / "seg_dino" / "results.json"
    results.write_text(results.read_text().replace("61.25", "-1"))
    line = as_markdown(build_table(collect(runs))).splitlines()[4]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "segmentation",
        "mIoU",
        "61.2",
        "–",
        "–",
        "–",
        "1.3 / – / 1.3",
    ]
