"""Rows, turns, tables and files of the benchmarks; and that each benchmark runs at its tiny size."""

import json
from pathlib import Path

import pytest

from benchmarks import measure, slide_inference
from benchmarks.__main__ import BENCHMARKS, LONG, main
from benchmarks.measure import Row, alone, compare, markdown_table, read_json, take_turns, text_table, write_json


def test_works_take_turns_and_the_warm_up_does_not_count():
    calls: list[str] = []
    seconds = iter(range(100))
    times = take_turns(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        rounds=2,
        clock=lambda work: (work(), next(seconds))[1],
        warm_up=1,
    )
    assert calls == ["a", "b"] * 3
    assert times == {"a": [2, 4], "b": [3, 5]}


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    row = compare("w", ("peer", [4.0, 9.0, 2.0]), ("ours", [1.0, 3.0, 1.0]), unit="ms", scale=1e3, goal=3.0)
    assert (row.peer_value, row.our_value) == (4000.0, 1000.0)
    assert row.ratio == 3.0 and row.spread == (2.0, 4.0)
    assert row.verdict == "met"
    assert compare("w", ("p", [2.9]), ("o", [1.0]), goal=3.0).verdict == "missed"
    assert compare("w", ("p", [2.9]), ("o", [1.0])).verdict == ""


def test_a_row_without_a_peer_has_no_ratio_and_no_verdict():
    row = alone("w", ("ours", [0.5]), note="no peer: give --dino")
    assert row.ratio is None and row.verdict == ""
    assert "no peer: give --dino" in text_table([row])


def test_tables_show_every_row_with_goal_and_note():
    rows = [
        compare("long work", ("peer", [4.0]), ("ours", [1.0]), goal=5.0, note="the limit is 4.1"),
        alone("w", ("ours", [2.0])),
    ]
    lines = text_table(rows).splitlines()
    assert lines[0].split() == ["work", "peer", "ours", "unit", "ratio", "spread", "goal"]
    assert "≥ 5 missed" in lines[1] and lines[2].strip() == "the limit is 4.1" and len(lines) == 4
    table = markdown_table(rows).splitlines()
    assert len(table) == 4 and all(line.count("|") == 9 for line in table)


def test_files_come_back_as_they_went(tmp_path: Path):
    rows = [compare("w", ("p", [2.0]), ("o", [1.0]), goal=1.5), Row("x", "", "o", None, None, "s", None, None)]
    write_json(tmp_path / "new" / "rows.json", rows, command="python -m benchmarks")
    content = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert content["rows"][0]["verdict"] == "met" and "cores" in content["machine"]
    assert read_json(tmp_path / "new" / "rows.json") == rows


def test_processor_time_leaves_sleep_out():
    import time

    assert measure.processor_clock(lambda: time.sleep(0.1)) < 0.05 < measure.wall_clock(lambda: time.sleep(0.1))


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture):
    assert main(["stpe"]) == 2
    assert "unknown stpe" in capsys.readouterr().err


def check_augment(rows: list[Row]) -> None:
    """Two sizes of the same photographs, with and without normalisation, and ours is the faster one."""
    assert [row.ours for row in rows] == ["ours", "ours, reduced_decoding", "ours + normalize"] * 2
    assert all(row.ratio is not None and row.ratio > 1 for row in rows)
    assert "500x375" in rows[0].work and "2000x1500" in rows[-2].work


def check_swin(rows: list[Row]) -> None:
    """Both kinds of work against each peer."""
    assert [(row.work.split(": ")[1], row.peer) for row in rows] == [
        (work, peer) for work in ("infer", "train") for peer in ("mmdet", "mmseg")
    ]
    assert all(row.ratio is not None and row.ratio > 0 for row in rows)
    assert all("saved" in row.note for row in rows[2:])


COMPARED = {"augment": check_augment, "swin": check_swin}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in LONG])
def test_each_runs_at_its_tiny_size(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """In this process, which has imported torch; one benchmark in a process of its own."""
    memory_apart = slide_inference.memory_apart
    monkeypatch.setattr(slide_inference, "memory_apart", lambda ours, quick: memory_apart(ours, quick) if ours else 1.0)
    monkeypatch.chdir(root)
    words = [] if name == "augment" else ["--in-process"]
    assert main([name, "--quick", *words, "--json", str(tmp_path / "rows.json")]) == 0
    rows = read_json(tmp_path / "rows.json")
    assert rows
    COMPARED.get(name, lambda rows: None)(rows)
    for row in rows:
        assert row.our_value is None or row.our_value > 0, row
