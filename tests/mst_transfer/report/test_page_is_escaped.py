"""Nothing that a run's folder says becomes a part of the page: names, commands, captions, logs."""

import json
from html.parser import HTMLParser

from mst_transfer.configs.saved import FILE
from mst_transfer.report.collect import collect
from mst_transfer.report.main import main, write_report

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>&{{7*7}}$style"


class Tags(HTMLParser):
    """Names of the tags, and attributes that could act."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.acts = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.acts += [
            (tag, name, value) for name, value in attrs if name.startswith("on") or "javascript:" in str(value)
        ]
        if tag == "img":
            self.acts += [
                (tag, name, value) for name, value in attrs if name == "src" and not value.startswith("data:")
            ]


def test_names_of_a_stranger_stay_text(runs, tmp_path):
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
    path, _, _ = write_report(runs, EVIL, with_predictions=False)
    page = path.read_text(encoding="utf-8")
    found = Tags(page)
    assert "script" not in found.tags and not found.acts
    assert "&lt;script&gt;" in page and "<b>name" not in page


def test_pictures_stay_in_their_folder(runs, tmp_path):
    (runs.parent / "secret.png").write_bytes(b"secret")
    index = runs / "pretrain" / "pictures" / "index.json"
    index.write_text(json.dumps([{"file": "../../../secret.png"}, {"file": "/etc/passwd"}]))
    path, _, missing = write_report(runs, with_predictions=False)
    assert "c2VjcmV0" not in path.read_text() and sum("secret.png" in str(item.path) for item in missing) == 1
    for text in ("{}", "[1]", '[{"title": "x"}]', '[{"file": 3}]', "[" * 100_000):
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
