"""Nothing that a run's folder says becomes a part of the page: names, commands, captions, logs."""

import json
from html.parser import HTMLParser

from mst_transfer.report.collect import collect
from mst_transfer.report.main import write_report

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


def test_a_config_of_a_stranger_is_not_run(runs, tmp_path):
    canary = tmp_path / "canary"
    for folder in runs.glob("det_*"):
        (folder / "zz.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
        for other in folder.glob("*.py"):
            if other.name != "zz.py":
                other.unlink()
    _, _, missing = write_report(runs, with_predictions=False)
    assert not canary.exists() and any("data only" in item.reason for item in missing)
