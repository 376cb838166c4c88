"""The page: whole, in one file, readable in a browser of any width; text from files stays text."""

import base64
import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import browser
import cv2
import markdown_it
import numpy as np
import pytest
from example_card import EVIL, LABELS, LONG, NAMES, TASKS, example, write_example

from mst_transfer.card.page import flat, grouped, label_curves, points, span, write_page
from mst_transfer.cli.main import main as mst

FALSE_PATH = "M<script>.png"


class Reader(HTMLParser):
    """Checks that tags are closed in order, and gathers text, pictures, links and whatever could act."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.text, self.images, self.links, self.acts, self.ids = [], "", [], [], [], []
        self.page, self.headings = page, []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        self.acts += [name for name, value in attrs if name.startswith("on") or "javascript:" in str(value)]
        self.acts += [tag] if tag in ("script", "iframe", "object", "form") else []
        self.images += [given] if tag == "img" else []
        self.links += [given["href"]] if tag == "a" else []
        self.ids += [given["id"]] if "id" in given else []

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag) if tag not in ("meta", "img", "link", "br") else None

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        self.headings += [data] if self.open and self.open[-1] == "h2" else []


@pytest.fixture(scope="module")
def read(card: Path) -> Reader:
    return Reader((card / "card.html").read_text(encoding="utf-8"))


def test_a_figure_that_rounds_to_zero_has_no_sign():
    assert [points(value, "+.1f") for value in (-0.04, 0.04, -0.06, 10.0)] == ["0.0", "0.0", "−0.1", "+10.0"]


def test_sections_stand_in_the_order_of_a_readers_questions(read: Reader) -> None:
    pictures = ["Predictions", "Attention and components"]
    rest = ["Leakage", "Cost", "Protocol", "Checkpoints", "Command", "Faults", "Environment", "Pre-training"]
    first = ["Verdict", "Differences", "Figures", "Fewer labels", "Classes"]
    assert read.headings == [*first, *pictures, *rest]
    assert read.links[1:] == [f"#{name}" for name in read.ids if name in {link[1:] for link in read.links}]
    assert len(set(read.ids)) == len(read.ids) and all(link[1:] in read.ids for link in read.links)


def test_every_figure_of_the_card_is_on_the_page(read: Reader) -> None:
    card = example()
    text = " ".join(read.text.split())
    for row in card["rows"]:
        assert points(row["value"]) in text and span(row["ci95"]) in text
        assert " · ".join(map(points, row["per_seed"])) in text
    for one in card["differences"]:
        words = one["verdict"].replace(" (", "\n", 1).split("\n")
        assert all(part in text for part in words) if one["primary"] else words[-1].split("): ")[-1] in text
        assert points(one["difference"], "+.1f") in text and span(one["ci95"], "+.1f") in text
    for name, value in flat([card[key] for key in ("protocol", "leakage", "environment")]):
        assert name.split(" · ")[-1] in text and " ".join(value.split()) in text
    for words in (card["command"], card["protocol_hash"], "ab" * 32, "skipped: head.weight", *LABELS, *TASKS):
        assert words in text
    assert "A verdict is about these files; a claim about methods needs several pre-trainings" in text
    assert (
        "1 of 37 jobs did not end well" in text
        and f"camvid-setr_pup-{LONG} failed. Again: mst train {EVIL}" in text
        and "out of memory" in text
    )
    minutes = sum(job["minutes"] or 0 for job in card["jobs"])
    assert f"37 jobs took {minutes:.1f} minutes in all" in text
    tones = [one["verdict"].split()[0] for one in card["differences"] if one["primary"]]
    assert (
        f"6 primary comparisons on camvid, coco_mini: {tones.count('better')} better, {tones.count('no')} open." in text
    )
    assert len(re.findall(r"\d, images only", text)) == sum(len(row["seeds"]) == 1 for row in card["rows"])
    assert "ln 512" in text and "elsewhere" not in text


def test_one_file_holds_all_and_nothing_in_it_acts(read: Reader, card: Path) -> None:
    assert (
        not read.acts
        and not re.search(r'(src|href)="(?!data:|#)', read.page)
        and "url(" not in re.sub(r"url\(#", "", read.page)
    )
    assert "<script" not in read.page and "onerror" not in re.sub(r"&lt;.*?&gt;", "", read.page)
    assert read.text.count("{{7*7}}") > 20 and "49" not in {word.strip("`|$a") for word in read.text.split("alert")}
    held = {base64.b64decode(image["src"].split(",")[1]) for image in read.images}
    files = {path.read_bytes() for path in [*card.rglob("*.jpg"), *card.parent.glob("pretrain/pictures/*.png")]}
    assert held == files and all(image["alt"] for image in read.images)
    assert len(read.images) == 2 * 3 * 5 + 2 * 3 * 4 + 1
    for data in held:
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


def test_markdown_says_the_same_and_shows_text_as_it_is(card: Path) -> None:
    text = (card / "card.md").read_text(encoding="utf-8")
    page = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    read = Reader(page)
    assert not read.acts and not read.images
    tables = page.split("<table>")[1:]
    content = example()
    assert [table.count("<tr>") - 1 for table in tables] == [len(content["differences"]), len(content["rows"])]
    assert all(row.count("<td") == 10 for table in tables for row in table.split("<tr>")[2:])
    words = " ".join(read.text.split())
    for name in NAMES:
        assert name in words
    for one in content["differences"]:
        assert one["verdict"] in words


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    found = browser.program()
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"none of {', '.join(browser.PROGRAMS)} is installed")
    assert found, "CI needs a browser: apt-get install chromium-headless-shell"
    opened = browser.Browser(found, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("scheme", browser.SCHEMES)
@pytest.mark.parametrize("size", browser.SIZES)
def test_in_a_browser_nothing_is_cut_off(tab: browser.Browser, card: Path, size: str, scheme: str) -> None:
    tab.open(card / "card.html", size, scheme)
    width, height = browser.SIZES[size]
    for _ in range(2):  # folded, and unfolded
        assert tab.evaluate("document.documentElement.scrollWidth") <= width == tab.evaluate("innerWidth")
        assert tab.cut_off(size) == [] and tab.complaints() == []
        tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    verdict = "document.querySelector('.verdicts b').getBoundingClientRect().bottom"
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = false; })")
    assert 0 < tab.evaluate(verdict) < height, "the first verdict is on the first screen"
    assert tab.evaluate("document.images.length") == tab.evaluate(
        "[...document.images].filter(i => i.naturalWidth).length"
    )
    ink, paper = (tab.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    lightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (lightness[0] < lightness[1]) == (scheme == "light") and abs(lightness[0] - lightness[1]) > 450


def test_what_is_cut_off_is_seen(tab: browser.Browser, tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text(
        "<meta name=viewport content='width=device-width'><p style='width:900px'>wide</p><script>throw 1</script>"
    )
    tab.open(page, "phone", "light")
    assert tab.cut_off("phone") == ["P : wide"] and len(tab.complaints()) == 1


def test_a_card_of_one_checkpoint_without_more(tmp_path: Path) -> None:
    content = example() | dict(differences=[], leakage={}, jobs=[])
    content["checkpoints"], content["rows"] = content["checkpoints"][:1], content["rows"][:1]
    (tmp_path / "card.json").write_text(json.dumps(content))
    read = Reader(write_page(tmp_path).read_text(encoding="utf-8"))
    assert read.headings == ["Verdict", "Figures", "Cost", "Protocol", "Checkpoints", "Command", "Environment"]
    assert "What this checkpoint is worth" in read.text and "No comparison was named as primary" in read.text


def test_the_verb_writes_page_and_markdown_anew(tmp_path: Path, pretraining: Path, capsys) -> None:
    folder = write_example(tmp_path / "card")
    assert mst(["card", str(folder), "--pretraining", str(pretraining)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "card.html")
    first = [(folder / name).read_bytes() for name in ("card.html", "card.md")]
    content = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(content | {"pretraining": [str(pretraining)]}))
    assert mst(["card", str(folder)]) == 0
    assert first == [(folder / name).read_bytes() for name in ("card.html", "card.md")]


def test_two_cards_side_by_side(tmp_path: Path, card: Path, capsys) -> None:
    (tmp_path / "card.json").write_text(json.dumps(example() | {"rows": example()["rows"][1:]}))
    assert mst(["card", str(card), "--against", str(tmp_path)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.endswith(f"  {card}  {tmp_path}") and len(lines) == len(example()["rows"])
    for row, is_in_both in zip(example()["rows"][:2], (False, True), strict=True):
        figure = f"{points(row['value'])} ({span(row['ci95'])})"
        end = f"  16  {row['checkpoint']}  {figure}  {figure if is_in_both else '–'}"
        assert sum(line.endswith(end) for line in lines) == 1
    (tmp_path / "card.json").write_text(json.dumps(example() | dict(protocol_hash="0", protocol={"seeds": [0]})))
    assert mst(["card", str(card), "--against", str(tmp_path)]) == 1
    assert "seeds: 0, 1, 2 against 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "mst evaluate CHECKPOINT"),
        ("{", "is no card"),
        ("[" * 100_000, "is no card"),
        ("[]", "is no card"),
        ('{"version": 2}', "has version 2, this program reads 1"),
    ],
)
def test_what_is_no_card_is_refused(tmp_path: Path, capsys, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    assert mst(["card", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert words in error and str(tmp_path / "card.json") in error and "mst evaluate" in error
    assert not (tmp_path / "card.html").exists()


def test_groups_keep_their_order() -> None:
    items = [{"k": key, "n": number} for number, key in enumerate("bab")]
    assert [(key, [one["n"] for one in found]) for key, found in grouped(items, "k")] == [
        (("b",), [0, 2]),
        (("a",), [1]),
    ]


def test_curves_go_from_few_labels_to_many() -> None:
    """Counts before shares, each by size; a checkpoint without a figure there has a gap; one amount makes no curve."""

    def row(labels, value, checkpoint="a", task="t"):
        of = dict(task=task, metric="m", protocol="p", labels=labels, checkpoint=checkpoint)
        return of | dict(value=value, ci95=[value - 1, value + 1])

    rows = [row("100%", 5.0), row("2.5%", 3.0), row("16", 2.0), row("4", 1.0), row("16", 9.0, "b")]
    rows += [row("4", 1.0, task="single")]
    ((group, amounts, (a, b)),) = label_curves(rows, {"a": 0, "b": 1, "c": 2})
    assert group == ("t", "m", "p") and amounts == ["4", "16", "2.5%", "100%"]
    assert a == ("a", (0, 1, 2, 3), (1.0, 2.0, 3.0, 5.0), (0.0, 1.0, 2.0, 4.0), (2.0, 3.0, 4.0, 6.0), 0)
    assert b == ("b", (1,), (9.0,), (8.0,), (10.0,), 1)


def test_words_of_figures() -> None:
    assert (
        points(-0.06, "+.1f") == "−0.1"
        and points(12.345) == "12.3"
        and points(None) == "–"
        and points(4e-4, ".2g") == "0.0004"
    )
    assert span([-0.8, 1.1], "+.1f") == "−0.8 … +1.1"
    nested = {"knn": {"k": 30, "ts": [0.1, None]}, "list": [{"a": 1}, 2], "none": {}}
    assert flat(nested) == [("knn · k", "30"), ("knn · ts", "0.1, None"), ("list · 1 · a", "1"), ("list · 2", "2")]
