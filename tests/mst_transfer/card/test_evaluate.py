"""A card from the command line: refusals, plan, jobs, stop and go on, verdicts."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from small_vit import SMALL, make_metadata, make_vit

from mst_transfer.card.outcomes import load_outcomes
from mst_transfer.card.plan import read_plan
from mst_transfer.card.run_jobs import job_folder, run_job, slurm_command, unfinished
from mst_transfer.checkpoint import save_backbone
from mst_transfer.cli.evaluate import main
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Sample data as the data root, and two tiny checkpoints, ``a`` and ``b``."""
    root = tmp_path_factory.mktemp("world")
    make_sample_data(root / "sample", SampleDataRequest(num_train=6, num_val=4, num_photos=1, size=64))
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        metadata = make_metadata(arch_kwargs=SMALL | dict(depth=4))
        save_backbone(root / f"{name}.safetensors", make_vit(depth=4).state_dict(), metadata)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MST_DATA_ROOT", str(root))
        yield root


def plan_of(world, out, *words):
    """The plan of a command, and nothing run."""
    checkpoints = [str(world / "a.safetensors"), str(world / "b.safetensors")]
    assert main([*checkpoints, "random", "--on", "sample", "--out", str(out), "--print-jobs", *words]) == 0
    return read_plan(out)


def card_of(world, out, *words):
    """``card.json`` of the same command."""
    checkpoints = [str(world / "a.safetensors"), str(world / "b.safetensors")]
    status = main([*checkpoints, "random", "--on", "sample", "--out", str(out), *words])
    return status, json.loads((out / "card.json").read_text())


def test_a_card(world, tmp_path, capsys):
    out, words = tmp_path / "card", ("--labels", "2", "100%", "--seeds", "0", "1", "2", "--primary", "dense_linear@2")
    plan = plan_of(world, out, *words)
    printed = [line for line in capsys.readouterr().out.splitlines() if "--job" in line]
    assert len(printed) == len(plan.jobs) == 2 + 3  # random has other weights for each seed
    assert all(str(world) in line and job.id in line for line, job in zip(printed, plan.jobs, strict=True))
    for job in plan.jobs:
        run_job(out, job.id)
    assert not unfinished(out, plan)
    written = [path.stat().st_mtime_ns for path in sorted(out.glob("jobs/*/*.npz"))]
    status, card = card_of(world, out, *words)
    assert status == 0
    assert written == [path.stat().st_mtime_ns for path in sorted(out.glob("jobs/*/*.npz"))], "a job ran twice"

    rows = {(row["protocol"], row["labels"], row["checkpoint"]): row for row in card["rows"]}
    assert len(rows) == 2 * 2 * 3
    row = rows["dense_knn", "100%", "a"]
    assert (row["task"], row["metric"], row["seeds"], row["num_images"]) == ("sample", "mIoU", [0, 1, 2], 4)
    assert len(set(row["per_seed"])) == 1, "all labels are the same labels for each seed"
    assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
    few = rows["dense_linear", "2", "a"]
    assert few["value"] == pytest.approx(np.mean(few["per_seed"]), abs=0.01) and len(set(few["per_seed"])) > 1
    known = [value for value in row["per_class"].values() if value is not None]
    assert row["value"] == pytest.approx(np.mean(known), abs=0.01)

    primary = [one for one in card["differences"] if one["primary"]]
    assert [(one["a"], one["b"]) for one in primary] == [("a", "b"), ("a", "random"), ("b", "random")]
    for one in card["differences"]:
        sides = [rows[one["protocol"], one["labels"], one[side]]["value"] for side in "ab"]
        assert one["difference"] == pytest.approx(sides[0] - sides[1], abs=0.01)
        assert ("exploratory" in one["verdict"]) != one["primary"]
        assert one["primary"] == ((one["protocol"], one["labels"]) == ("dense_linear", "2"))
    assert [job["status"] for job in card["jobs"]] == ["done"] * 5
    assert (out / "card.html").is_file() and (out / "card.md").is_file()
    assert card["protocol"]["options"]["labels"] == ["2", "100%"] and len(card["protocol_hash"]) == 64
    assert [one["sha256"] != "" for one in card["checkpoints"]] == [True, True, False]


def test_a_checkpoint_against_itself_is_no_different(world, tmp_path):
    out = tmp_path / "card"
    words = ["one=" + str(world / "a.safetensors"), "two=" + str(world / "a.safetensors")]
    words += ["--on", "sample", "--labels", "3", "--out", str(out)]
    assert main([*words, "--print-jobs"]) == 0
    for job in read_plan(out).jobs:
        run_job(out, job.id)
    assert main(words) == 0
    for one in json.loads((out / "card.json").read_text())["differences"]:
        assert (one["difference"], one["ci95"]) == (0, [0, 0])


def test_what_an_outcome_depends_on_makes_another_job_and_another_protocol(world, tmp_path):
    first = plan_of(world, tmp_path, "--labels", "2")
    for words in (("--labels", "3"), ("--labels", "2", "--max-side", "32"), ("--labels", "2", "--num-blocks", "2")):
        other = plan_of(world, tmp_path, *words)
        assert not {job.id for job in first.jobs} & {job.id for job in other.jobs}
        assert first.protocol() != other.protocol()
    again = plan_of(world, tmp_path, "--labels", "2")
    assert (again.jobs, again.protocol()) == (first.jobs, first.protocol())


@pytest.mark.slow
def test_a_failed_job_stops_no_other_and_is_named(world, tmp_path, capsys):
    out = tmp_path / "card"
    plan = plan_of(world, out, "--labels", "2", "--seeds", "0", "1")
    blocked = job_folder(out, plan.jobs[0]) / "result.json"
    (blocked / "in the way").mkdir(parents=True)
    status, card = card_of(world, out, "--labels", "2", "--seeds", "0", "1", "--jobs", "2")
    assert status == 1
    assert [job["status"] for job in card["jobs"]] == ["failed", "done", "done", "done"]
    assert plan.jobs[0].id in capsys.readouterr().out and "result.json" in card["jobs"][0]["error"]


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_card(world, tmp_path):
    words = [str(world / "a.safetensors"), "random", "--on", "sample", "--labels", "2", "--seeds", "0", "1"]
    command = [sys.executable, "-m", "mst_transfer.cli.main", "evaluate", *words, "--out"]
    for out, wanted in ((tmp_path / "killed", 1), (tmp_path / "whole", None)):
        process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while wanted is not None and len(list(out.glob("jobs/*/result.json"))) < wanted:
            assert process.poll() is None
            time.sleep(0.05)
        if wanted is not None:
            time.sleep(1.0)  # the next job is on its way
            process.kill()
            process.wait()
            process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert process.wait(timeout=300) == 0
    cards = [json.loads((tmp_path / name / "card.json").read_text()) for name in ("killed", "whole")]
    for card in cards:
        del card["command"]
        assert all(job.pop("minutes") and job.pop("command") for job in card["jobs"])
    assert cards[0] == cards[1]


SEG = """
_base_ = "mst_transfer::seg_configs/mst_setr_pup_sample.py"
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3), logger=dict(interval=1))
"""
DET = """
_base_ = "mst_transfer::det_configs/mst_maskrcnn_sample.py"
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["seg", "det"])
def test_heads_choose_a_learning_rate_and_leave_outcomes_by_image(kind, world, tmp_path):
    config = tmp_path / f"mst_tiny_{kind}.py"
    config.write_text(dict(seg=SEG, det=DET)[kind])
    out, words = tmp_path / "card", [str(world / "a.safetensors"), "random", f"--{kind}-config", str(config)]
    words += ["--labels", "3", "--seeds", "0", "1", "--no-probes", "--tune", "--lr-factors", "0.5", "2"]
    words += ["--out", str(out)]
    assert main([*words, "--print-jobs"]) == 0
    plan = read_plan(out)
    assert [(job.checkpoint, *job.seeds) for job in plan.jobs] == [("a", 0), ("random", 0), ("a", 1), ("random", 1)]
    for job in plan.jobs:
        run_job(out, job.id)
    assert main(words) == 0
    card = json.loads((out / "card.json").read_text())
    metrics = {"mIoU"} if kind == "seg" else {"box mAP", "mask mAP"}
    assert {row["metric"] for row in card["rows"]} == metrics
    for row in card["rows"]:
        figure = dict(zip(row["seeds"], row["per_seed"], strict=True))
        for job in (job for job in plan.jobs if job.checkpoint == row["checkpoint"]):
            results = json.loads((job_folder(out, job) / "run" / "results.json").read_text())
            name = {"mIoU": "mIoU", "box mAP": "coco/bbox_mAP", "mask mAP": "coco/segm_mAP"}[row["metric"]]
            scale = 1 if kind == "seg" else 100
            assert figure[job.seeds[0]] == pytest.approx(scale * results["metrics"][name], abs=0.06)
            used = json.loads((job_folder(out, job) / "run" / "run_config.json").read_text())
            assert len(find(used["train_dataloader"]["dataset"], "indices")) == 3
    shown = [json.loads(path.read_text()) for path in out.glob("pictures/*-seed0-*/index.json")]
    assert len(shown) == 2 and all(len(grid["cells"]) == 4 and "truth" in grid["cells"].popitem()[1] for grid in shown)
    choices = list(out.glob("jobs/choice-*/learning_rate.json"))
    assert len(choices) == 2, "one choice for both seeds of a checkpoint"
    rates = set()
    for path in choices:
        tried = [json.loads(one.read_text()) for one in path.parent.glob("*/run_config.json")]
        assert len(tried) == 2
        for used in tried:
            kept = find(used["train_dataloader"]["dataset"], "indices")
            held_out = find(used["val_dataloader"]["dataset"], "indices")
            assert len(kept) == 2 and len(held_out) == 1 and not set(kept) & set(held_out)
            rates.add(used["optim_wrapper"]["optimizer"]["lr"])
    assert max(rates) == pytest.approx(4 * min(rates))


def find(node, name):
    """The value of the first entry of a name in a nested config."""
    if isinstance(node, dict) and name in node:
        return node[name]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next((found for child in children if (found := find(child, name)) is not None), None)


@pytest.mark.parametrize(
    "words, said",
    [
        ("", "no data"),
        ("--on nothing", "--on nothing"),
        ("--on sample --labels 7", "--labels 7, sample"),
        ("--on sample --labels 0", "--labels 0"),
        ("--on sample --labels 2 2", "each once"),
        ("--on sample --seeds -1", "--seeds"),
        ("--on sample --primary knn", "--primary knn"),
        ("--on sample --primary dense_knn@5", "--primary dense_knn@5"),
        ("--on sample --tune nothing", "--tune nothing"),
        ("--on sample --no-probes", "--no-probes"),
        ("--on sample --jobs 2 --gpus 2", "--jobs 2 --gpus 2"),
        ("--on sample sample", "each once"),
        ("--images nowhere", "nowhere"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(words, said, world, tmp_path):
    out = tmp_path / "card"
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        main([str(world / "a.safetensors"), *words.split(), "--out", str(out)])
    assert not (out / "plan.json").exists()


def test_no_checkpoint_and_no_such_checkpoint_are_refused(world, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint"):
        main(["--on", "sample", "--out", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="nope.pth"):
        main(["nope.pth", "--on", "sample", "--out", str(tmp_path)])


def test_a_folder_that_cannot_be_written_is_refused(world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--out"):
        main([str(world / "a.safetensors"), "--on", "sample", "--out", str(tmp_path / "file")])


def test_features_that_do_not_fit_the_disk_are_refused(world, tmp_path, monkeypatch):
    from mst_transfer.card import evaluate

    monkeypatch.setattr(evaluate, "free_space", lambda path: 1000)
    with pytest.raises(ValueError, match="--feature-dtype float16"):
        main([str(world / "a.safetensors"), "--on", "sample", "--out", str(tmp_path)])


def test_slurm_runs_a_line_of_the_file_a_task(tmp_path):
    path = tmp_path / "jobs.txt"
    path.write_text("echo one\necho 'two words'\n")
    command = slurm_command(path, "gpu", 2)
    assert command[:3] == ["sbatch", "--array=1-2", "--partition=gpu"]
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "2"}
    ran = subprocess.run(["sh", "-c", command[-1]], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "two words\n"


def test_images_of_class_folders(world, tmp_path):
    import cv2

    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(6):
                picture = random.integers(0, 100, (32, 32, 3)) + 150 * label
                cv2.imwrite(str(folder / f"{index}.png"), picture.astype(np.uint8))
    out = tmp_path / "card"
    words = [
        str(world / "a.safetensors"),
        "--images",
        str(tmp_path / "images"),
        "--labels",
        "4",
        "100%",
        "--out",
        str(out),
    ]
    assert main([*words, "--print-jobs"]) == 0
    (job,) = read_plan(out).jobs
    run_job(out, job.id)
    found = load_outcomes(job_folder(out, job))
    assert {key.protocol for key in found} == {"knn", "linear"} and len(found) == 2 * 2 * 3
    figures = {
        key.protocol: measure.figures(np.ones((1, 12)))[0] for key, measure in found.items() if key.labels == "100%"
    }
    assert figures["knn"] == 100.0
    assert main(words) == 0
    with pytest.raises(ValueError, match="no such job"):
        run_job(out, "nothing")
    assert sys.executable
