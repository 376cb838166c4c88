"""A card from the command line: refusals, plan, jobs, stop and go on, verdicts."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_cards import card_of, content_of, plan_of
from small_vit import SMALL, make_metadata, make_vit

from mst_transfer.card import collect, probe_job
from mst_transfer.card.leakage import find_leaks
from mst_transfer.card.measures import Accuracy
from mst_transfer.card.outcomes import load_outcomes
from mst_transfer.card.plan import job_folder, read_plan
from mst_transfer.card.run_jobs import run_job, unfinished
from mst_transfer.card.statistics import compare
from mst_transfer.checkpoint import save_backbone
from mst_transfer.cli.evaluate import main


def test_a_card(world, tmp_path, capsys, monkeypatch):
    out, words = tmp_path / "card", ("--labels", "2", "100%", "--seeds", "0", "1", "2", "--primary", "dense_linear@2")
    plan = plan_of(world, out, *words)
    printed = [line for line in capsys.readouterr().out.splitlines() if "--job" in line]
    assert len(printed) == len(plan.jobs) == 2 + 3  # random has other weights for each seed
    assert all(str(world) in line and job.id in line for line, job in zip(printed, plan.jobs, strict=True))
    for job in plan.jobs:
        run_job(out, job.id)
    assert not unfinished(out, plan)
    written = [path.stat().st_mtime_ns for path in sorted(out.glob("jobs/*/*.npz"))]
    result = job_folder(out, plan.jobs[1]) / "result.json"
    content = json.loads(result.read_text())
    content["environment"]["torch"] = "1.0"
    result.write_text(json.dumps(content))
    status, card = card_of(world, out, *words)
    assert status == 0
    assert [job.get("environment") for job in card["jobs"]] == [None, {"torch": "1.0"}, None, None, None]
    assert "torch" in card["environment"] and "hardware" in card["environment"]
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

    unsought = ({}, ["photos, which one was pre-trained on (not there)"])
    monkeypatch.setattr("mst_transfer.card.evaluate.pretraining_runs", lambda checkpoints: unsought)
    hashes = {card["protocol_hash"]}
    for place in range(2):  # as if another image had leaked each time: nothing runs again

        def leak(val_paths, *pools, place=place, **options):
            return replace(find_leaks(val_paths, *pools, **options), leaked={list(val_paths)[place]})

        monkeypatch.setattr("mst_transfer.card.evaluate.find_leaks", leak)

        status, without = card_of(world, out, *words, "--leave-out-leaks")
        assert {row["num_images"] for row in without["rows"]} == {3}
        assert without["protocol"]["left_out"]["sample"]["images"] == 1
        assert "Not searched: photos, which one" in without["leakage"]["sample"]["sentence"]
        hashes.add(without["protocol_hash"])
    assert len(hashes) == 3


def test_planned_comparisons_that_failed_still_count_in_holms_family(monkeypatch):
    random = np.random.default_rng(0)
    outcomes = {
        name: {seed: Accuracy(random.random(60) < share, digest="x") for seed in range(3)}
        for name, share in (("a", 0.7), ("b", 0.5))
    }
    plan = SimpleNamespace(pairs=lambda: [("a", "b"), ("a", "c"), ("b", "c")], task=str, options=None)
    monkeypatch.setattr(collect, "primary_of", lambda task, options: ("top-1", "knn", "100%"))
    (found,) = collect._differences(plan, {collect.Comparison("t", "top-1", "knn", "100%"): outcomes}, {"t": None})
    alone = compare(*(list(one.values()) for one in outcomes.values())).p_value
    assert 0 < alone < 0.3 and found["adjusted"] == pytest.approx(3 * alone, abs=1e-6) and found["seeds"] == [0, 1, 2]


def test_a_pattern_makes_sequences_of_known_data_too(world, tmp_path):
    words = ["--labels", "2", "--group", r"scene_00000(\d)/2"]
    assert [task.group for task in plan_of(world, tmp_path, *words).tasks] == [words[-1]]
    with pytest.raises(ValueError, match="--group 'nothing' finds no"):
        plan_of(world, tmp_path, "--labels", "2", "--group", "nothing")


@pytest.mark.slow
def test_a_failed_job_stops_no_other_and_is_named(world, tmp_path, capsys):
    out = tmp_path / "card"
    plan = plan_of(world, out, "--labels", "2", "--seeds", "0")
    blocked = job_folder(out, plan.jobs[0]) / "result.json"
    (blocked / "in the way").mkdir(parents=True)
    status, card = card_of(world, out, "--labels", "2", "--seeds", "0", "--jobs", "2")
    assert status == 1
    assert [job["status"] for job in card["jobs"]] == ["failed", "done", "done"]
    assert plan.jobs[0].id in capsys.readouterr().out and "result.json" in card["jobs"][0]["error"]


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_card(world, tmp_path):
    out, words = tmp_path / "killed", ("--labels", "2", "--seeds", "0")
    named = [str(world / "a.safetensors"), str(world / "b.safetensors"), "random", "--on", "sample", *words]
    command = [sys.executable, "-m", "mst_transfer.cli.main", "evaluate", *named, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob("jobs/*/result.json")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)  # the next job is on its way
    process.kill()
    process.wait()
    whole = tmp_path / "whole"
    for job in plan_of(world, whole, *words).jobs:
        run_job(whole, job.id)
    cards = [card_of(world, folder, *words) for folder in (out, whole)]
    for status, card in cards:
        assert status == 0 and card.pop("command")
        assert all(job.pop("minutes") and job.pop("command") for job in card["jobs"])
    assert cards[0] == cards[1]


@pytest.mark.parametrize(
    "words, said",
    [
        ("", "no data"),
        ("--on nothing", "--on nothing"),
        ("--on sample --labels 7", "--labels 7, sample"),
        ("--on sample --labels 0", "--labels 0"),
        ("--on sample --labels 1 --tune", "of one image none is left"),
        ("--on sample --labels 2 2", "each once"),
        ("--on sample --seeds -1", "--seeds"),
        ("--on sample --primary knn", "--primary knn"),
        ("--on sample --primary dense_knn@5", "--primary dense_knn@5"),
        ("--on sample --tune nothing", "--tune nothing"),
        ("--on sample --no-probes", "--no-probes"),
        ("--on sample --jobs 2 --gpus 2", "--jobs 2 --gpus 2"),
        ("--on sample sample", "each once"),
        ("--images nowhere", "nowhere"),
        ("--images nowhere --no-probes --tune", "images: no head"),
        ("--on sample --pool nowhere", "'.*nowhere' does not exist"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(words, said, world, tmp_path):
    out = tmp_path / "card"
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        main([str(world / "a.safetensors"), *words.split(), "--out", str(out)])
    assert not (out / "plan.json").exists()


def test_a_folder_that_cannot_be_written_is_refused(world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"{tmp_path / 'file'}.*name a folder"):
        main([str(world / "a.safetensors"), "--on", "sample", "--out", str(tmp_path / "file")])


def test_features_that_do_not_fit_the_disk_are_refused(world, tmp_path, monkeypatch):
    from mst_transfer.card import costs

    monkeypatch.setattr(costs, "free_space", lambda path: 1000)
    with pytest.raises(ValueError, match="--feature-dtype float16"):
        main([str(world / "a.safetensors"), "--on", "sample", "--out", str(tmp_path)])


SBATCH = """#!/bin/sh
# As Slurm's: takes a script from its standard input; runs an array's tasks two at a time, here at once, elsewhere
for word; do case $word in --array=1-*) last=${word#--array=1-} ;; --output=*) output=${word#--output=} ;; esac; done
case " $* " in *" --partition=tiny "*) ;; *)
  echo "sbatch: error: invalid partition specified: $*" >&2
  echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
  exit 1 ;;
esac
script=$(mktemp) && cat >"$script" && cd / && unset MST_DATA_ROOT
for task in $(seq "$last"); do
  SLURM_ARRAY_TASK_ID=$task sh "$script" >"$(echo "$output" | sed "s/%A/7/; s/%a/$task/")" 2>&1 &
  [ $((task % 2)) -eq 1 ] || wait
done
wait
echo "Submitted batch job 7"
"""


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A cluster with one partition, ``tiny``."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["slurm", "parallel"])
def test_jobs_that_others_run_give_the_same_card(scheduler, world, tmp_path, monkeypatch, capfd, sbatch):
    if scheduler == "parallel" and shutil.which("parallel") is None:
        pytest.skip("no GNU parallel here: apt-get install parallel")
    monkeypatch.chdir(world)
    words = ["a.safetensors", "random", "--on", "sample", "--labels", "2", "--seeds", "0"]
    out, here = tmp_path / "a card", tmp_path / "here"
    if scheduler == "slurm":
        assert main([*words, "--out", str(out), "--slurm", "tiny"]) == 0
        assert "Submitted batch job 7" in capfd.readouterr().out
        assert len(list(out.glob("slurm-7_[12].txt"))) == 2
    else:
        assert main([*words, "--out", str(out), "--print-jobs"]) == 0
        commands = capfd.readouterr().out
        subprocess.run(["parallel", "-j", "2"], input=commands, text=True, check=True, cwd=tmp_path)
    assert not unfinished(out, read_plan(out)), [path.read_text() for path in out.glob("slurm*")]
    assert main([*words, "--out", str(here), "--print-jobs"]) == 0
    for job in read_plan(here).jobs:
        run_job(here, job.id)
    cards = []
    for folder in (out, here):
        monkeypatch.setattr("mst_transfer.card.run_jobs._start", None)  # nothing is left to start
        assert main([*words, "--out", str(folder)]) == 0
        cards.append(content_of(folder))
    assert cards[0] == cards[1]
    capfd.readouterr()
    for option in ("--print-jobs", "--slurm=gone"):  # and nothing to hand over
        assert main([*words, "--out", str(out), option]) == 0
    assert "--job" not in capfd.readouterr().out


def test_what_slurm_refuses_is_said_and_nothing_runs(world, tmp_path, monkeypatch, capfd, sbatch):
    words = [str(world / "a.safetensors"), "--on", "sample", "--labels", "2", "--out", str(tmp_path / "card")]
    with pytest.raises(ValueError, match=r"--slurm gone: sbatch took no job \(status 1\)"):
        main([*words, "--slurm", "gone"])
    assert "Invalid partition name specified" in capfd.readouterr().err
    assert not list(tmp_path.glob("card/jobs/*"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no 'sbatch' here.*--print-jobs"):
        main([*words, "--slurm", "tiny"])


def test_images_of_class_folders(world, tmp_path, monkeypatch):
    import cv2

    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(6):
                picture = random.integers(0, 100, (32, 32, 3)) + 150 * label
                cv2.imwrite(str(folder / f"{index}.png"), picture.astype(np.uint8))
    out, large, sizes = tmp_path / "card", tmp_path / "large.safetensors", []
    shape = dict(arch_kwargs=SMALL | dict(img_size=48), img_size=(48, 48))
    save_backbone(large, make_vit(img_size=48).state_dict(), make_metadata(**shape))
    words = [str(world / "a.safetensors"), str(large), "--images", str(tmp_path / "images"), "--labels", "4", "100%"]
    words += ["--out", str(out)]
    assert main([*words, "--print-jobs"]) == 0
    opened = probe_job.open_pair
    monkeypatch.setattr(probe_job, "open_pair", lambda *words: sizes.append(words[2]) or opened(*words))
    for job in reversed(read_plan(out).jobs):
        run_job(out, job.id)
    assert sizes == [32, 32], "every checkpoint sees the same pixels"
    found = load_outcomes(job_folder(out, job))
    assert {key.protocol for key in found} == {"knn", "linear"} and len(found) == 2 * 2 * 3
    figures = {
        key.protocol: measure.figures(np.ones((1, 12)))[0] for key, measure in found.items() if key.labels == "100%"
    }
    assert figures["knn"] == 100.0
    assert main(words) == 0
    with pytest.raises(ValueError, match="no such job"):
        run_job(out, "nothing")
