"""The page: complete, self-contained, open about what is not there; what a run's folder says stays text."""

import base64
import json
import re
import sys
from html.parser import HTMLParser

import cv2
import numpy as np

from mst_transfer.cli.main import main as mst
from mst_transfer.configs.saved import FILE
from mst_transfer.report import main
from mst_transfer.report.collect import collect
from mst_transfer.report.main import differing_settings, write_report

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>&{{7*7}}$style"


class Reader(HTMLParser):
    """Checks that tags are closed in order, and gathers text, pictures, links and whatever could act."""

    def __init__(self, runs):
        super().__init__()
        self.open, self.text, self.images, self.links, self.acts = [], "", [], [], []
        self.page = (runs / "report.html").read_text(encoding="utf-8")
        self.feed(self.page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        self.acts += [name for name, value in attrs if name.startswith("on") or "javascript:" in str(value)]
        self.acts += ["script"] if tag == "script" else []
        self.images += [dict(attrs)["src"]] if tag == "img" else []
        self.links += [dict(attrs)["href"]] if tag == "a" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_of_complete_runs(runs, capsys):
    assert main([str(runs), "--no-predictions", "--strict"]) == 0
    printed = capsys.readouterr()
    assert "+10.8" in printed.out and "report.html" in printed.out and not printed.err
    reader = Reader(runs)
    assert "Importance & mask" in reader.text and "Not there" not in reader.text
    # Every number stands in the page, with the command that measured it, seed, versions and hardware.
    for word in ("31.2", "20.4", "61.2", "50.5", "+10.8", "CPU, 2 cores", "torch 2.14.1", "seed 7"):
        assert word in reader.text, word
    for name in ("det_mst", "det_random", "seg_mst", "seg_random"):
        assert f"--work-dir <{name}>" in reader.text
    assert "bash tools/pretrain.sh CONFIG 1" in reader.text
    assert not re.search(r'(src|href)="(?!data:|#)', reader.page), "the page needs no other file"
    assert all(f'id="{link[1:]}"' in reader.page for link in reader.links)
    embedded = {base64.b64decode(source.split(",")[1]) for source in reader.images}
    names = {"pretrain_curves.png", "det_curves.png", "seg_curves.png"}
    assert {path.name for path in (runs / "report").iterdir()} == names
    on_disk = {(runs / "report" / name).read_bytes() for name in names}
    assert embedded == on_disk | {(runs / "pretrain" / "pictures" / "mask.png").read_bytes()}
    for data in embedded:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.std() > 0


def test_missing_pieces_are_said_and_strict_fails(runs, capsys):
    (runs / "seg_mst" / "results.json").unlink()
    assert main([str(runs), "--no-predictions"]) == 0
    assert main([str(runs), "--no-predictions", "--strict"]) == 1
    expected = f"not there: {runs / 'seg_mst' / 'results.json'}, made by: mst train CONFIG"
    assert expected in capsys.readouterr().err
    assert str(runs / "seg_mst" / "results.json") in Reader(runs).text


def test_nothing_there(tmp_path, capsys):
    assert mst(["report", str(tmp_path)]) == 1
    assert "tools/quickstart.sh" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_runs_that_differ_in_more_than_their_weights_are_said_to(runs):
    def differing(depth, epochs, seed=7):
        for name, content in (
            ("mst", dict(model=dict(backbone=dict(checkpoint="t", depth=4)), work_dir="a", train_cfg=dict(epochs=3))),
            ("random", dict(model=dict(backbone=dict(depth=depth)), work_dir="b", train_cfg=dict(epochs=epochs))),
        ):
            (runs / f"det_{name}" / FILE).write_text(json.dumps(content))
        found = collect(runs).of("det")
        found[1].results["seed"] = seed
        return differing_settings(found)

    assert differing(4, 3) == [] and differing(6, 3) == ["model"]
    assert differing(4, 5, seed=8) == ["seed", "train_cfg"]
    write_report(runs, with_predictions=False)
    assert "differ in more than the backbone's weights: train_cfg" in Reader(runs).text


def test_a_run_that_cannot_predict_does_not_cost_the_page(runs, monkeypatch, capsys):
    """The others keep their pictures; its reason stands in the page."""
    report = sys.modules[write_report.__module__]

    def predict(run, num_images, min_score):
        if run.label == "MST":
            raise RuntimeError("size mismatch for the head")
        return ("a", "b"), []

    def draw(classes, found, path):
        drawn.append((path.name[:3], list(found)))
        path.touch()

    drawn = []
    monkeypatch.setattr(report, "predict", predict)
    monkeypatch.setattr(report, "draw_predictions", draw)
    (runs / "pretrain" / "teacher.safetensors").write_bytes(b"broken")
    assert main([str(runs), "--strict"]) == 1
    assert drawn == [("det", ["random"]), ("seg", ["random"])]
    text = Reader(runs).text
    assert "no predictions of MST (RuntimeError: size mismatch for the head)" in text and "not readable" in text
    assert "size mismatch" in capsys.readouterr().err


def test_names_of_a_stranger_stay_text(runs):
    for path in runs.glob("*/results.json"):
        content = json.loads(path.read_text())
        content |= {"command": EVIL, EVIL: EVIL, "seed": EVIL, "hardware": {EVIL: [EVIL]}, "minutes": EVIL}
        content["metrics"] = {**content.get("metrics", {}), EVIL: EVIL}
        path.write_text(json.dumps(content))
    index = runs / "pretrain" / "pictures" / "index.json"
    entries = json.loads(index.read_text())
    index.write_text(json.dumps([{**entry, "title": EVIL, "caption": EVIL} for entry in entries]))
    with (runs / "stages.tsv").open("a") as file:
        file.write(f"{EVIL}\t1.0\t{EVIL}\n")
    (runs / "det_<b>name").mkdir()
    write_report(runs, with_predictions=False)
    reader = Reader(runs)
    assert not reader.acts and all(source.startswith("data:") for source in reader.images)
    assert "&lt;script&gt;" in reader.page and "<b>name" not in reader.page and "{{7*7}}" in reader.text


def test_pictures_stay_in_their_folder(runs):
    (runs.parent / "secret.png").write_bytes(b"secret")
    index = runs / "pretrain" / "pictures" / "index.json"
    files = ("../../../secret.png", "/etc/passwd")
    index.write_text(json.dumps([{"file": file, "title": "", "caption": ""} for file in files]))
    path, _, missing = write_report(runs, with_predictions=False)
    assert "c2VjcmV0" not in path.read_text() and sum("secret.png" in str(item.path) for item in missing) == 1
    for text in ("[1]", '[{"title": "x"}]', '[{"file": 3}]', "[" * 100_000):
        index.write_text(text)
        found = collect(runs)
        assert not found.pictures and any(item.path == index for item in found.missing)


def test_nothing_of_a_strangers_config_is_run(runs, tmp_path, monkeypatch):
    """Neither the program, unless it is trusted, nor what the data name."""
    canary = tmp_path / "canary"
    for path in (tmp_path / "Evil.py", runs / "det_mst" / "config.py"):
        path.write_text(f"open({str(canary)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (runs / "det_mst" / FILE).unlink()
    (runs / "seg_mst" / FILE).write_text(
        '{"default_scope": "mmseg", "model": {"type": "Evil"}, "val_dataloader": {"dataset": {"type": "Evil"}}}'
    )
    missing = {item.path: item for item in write_report(runs)[2]}
    assert "config.py is a program" in missing[runs / "det_mst" / FILE].reason
    assert missing[runs / "det_mst" / FILE].command == f"mst report {runs} --trust-config"
    assert "Failed to get Evil" in missing[runs / "seg_mst" / "epoch_2.pth"].reason and not canary.exists()
    assert main([str(runs), "--no-predictions", "--trust-config"]) == 0 and canary.exists()
