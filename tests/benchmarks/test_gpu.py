"""The frame of the acceptance run for a GPU with stages of a second, and, slowly, all stages on the CPU."""

import json
import os
import sys
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.__main__ import main
from benchmarks.gpu import acceptance, equality
from benchmarks.gpu.device import Task, each
from benchmarks.gpu.whole_runs import count_waits
from benchmarks.measure import Row, alone, as_entry, within

ROW = as_entry(alone("work", ("ours", [1.0])))
WRITE = f"open(sys.argv[1], 'a').write({json.dumps(ROW)!r} + chr(10)); "
SCRIPTS = {
    "hanging": WRITE + "time.sleep(60)",
    "good": WRITE,
    "bad": WRITE + "sys.exit('it broke')",
    "last": WRITE * 2,
}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages of ``SCRIPTS`` stand for the true ones; names of those that were begun."""
    begun: list[str] = []

    def command(name: str, args: Namespace, rows: Path) -> list[str]:
        begun.append(name)
        return [sys.executable, "-S", "-c", f"import sys, time; {SCRIPTS[name]}", str(rows)]

    monkeypatch.setattr(acceptance, "STAGES", {name: ("", 2 if name == "hanging" else 20, name) for name in SCRIPTS})
    monkeypatch.setattr(acceptance, "stage_command", command)
    monkeypatch.setattr(acceptance, "GRACE", 0.2)
    return begun


def start(path: Path, *words: str) -> int:
    return main(["gpu", "--device", "cpu", "--tiny", "--json", str(path), "--minutes", "1", *words])


def results(path: Path) -> dict[str, tuple[str, int]]:
    """Status and number of figures of each stage."""
    stages = json.loads(path.read_text())["stages"]
    return {name: (result["status"], len(result["rows"])) for name, result in stages.items()}


def test_a_stage_that_fails_or_hangs_keeps_its_figures_and_stops_no_other(
    stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    begun = time.monotonic()
    assert start(tmp_path / "out.json") == 1
    assert results(tmp_path / "out.json") == {
        "hanging": ("timed out", 1), "good": ("done", 1), "bad": ("failed", 1), "last": ("done", 2)
    }  # fmt: skip
    assert time.monotonic() - begun < 50
    output = capsys.readouterr().out
    assert "it broke" in output and "5 figures; goals: 0 met, 0 missed; hanging timed out; bad failed" in output


def test_what_a_hanging_stage_has_started_ends_with_it(tmp_path: Path) -> None:
    script = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    command = [sys.executable, "-S", "-c", script]
    status, output = acceptance.run_apart(command, tmp_path / "rows", 1.0, os.environ, lambda rows: None)
    assert status == "timed out"
    stat = Path(f"/proc/{int(output)}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_a_second_run_takes_what_is_not_done_or_what_is_named(
    stages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCRIPTS, "hanging", WRITE)
    path = tmp_path / "out.json"
    assert start(path, "--stages", "last", "good") == 0
    assert stages == ["last", "good"]
    start(path, "--stages", "good")
    assert stages[2:] == ["good"] and list(results(path)) == ["last", "good"]
    start(path)
    assert stages[3:] == ["hanging", "bad"]
    assert main(["gpu", "--device", "cpu", "--json", str(path)]) == 2  # of other sizes
    path.write_text("[]")
    assert start(path) == 2 and path.read_text() == "[]"


def test_unknown_stages_and_a_missing_gpu_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["gpu", "--json", str(tmp_path / "out.json"), "--stages", "stpes"])
    assert "stpes" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu", "--json", str(tmp_path / "out.json")]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_a_part_that_fails_does_not_stop_those_after_it() -> None:
    def failing(row: Row):
        yield row
        raise ZeroDivisionError("in the second row")

    rows, row = [], alone("work", ("ours", [1.0]))
    with pytest.raises(RuntimeError, match="first failed(.|\n)*in the second row"):
        for found in each({"first": failing(row), "second": iter([row])}):
            rows.append(found)
    assert len(rows) == 2


@pytest.mark.parametrize(
    "value, allowed, verdict",
    [(1e-5, 1e-4, "met"), (2e-4, 1e-4, "missed"), (0, 0, "met"), (1, 0, "missed"), (float("nan"), 1, "missed")],
)
def test_a_figure_is_within_what_is_allowed(value: float, allowed: float, verdict: str) -> None:
    assert within("work", "ours", value, allowed).verdict == verdict


@pytest.mark.parametrize("error, verdicts", [(0.0, ["met", "met"]), (0.01, ["missed", "missed"])])
def test_nets_that_differ_are_found(error: float, verdicts: list[str]) -> None:
    errors = iter([1.0, 1.0 + error])
    net = nn.Linear(4, 3)

    def loss(model: nn.Module, place: str) -> Tensor:
        return next(errors) * model(torch.ones(2, 4)).square().sum()

    assert [row.verdict for row in equality.compare_nets("net", net, loss, "cpu")] == verdicts


def test_waits_are_counted_by_place() -> None:
    reader: dict = {"__name__": "mmengine.reader"}
    exec("def read(x):\n    return x.item() + x.tolist()", reader)
    caller: dict = {"__name__": "pretrain.caller", "read": reader["read"]}
    exec("def call(x):\n\n    return read(x)", caller)
    places = Counter[str]()
    with count_waits("cpu", places):
        caller["call"](torch.ones(()))
        reader["read"](torch.ones(()))
        torch.ones(()).item()
    assert places == {"pretrain/caller.py:3 (mmengine/reader.py:2)": 2, "mmengine/reader.py:2": 2, "elsewhere": 1}


@pytest.mark.slow
def test_all_stages_are_rehearsed_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["gpu", "--device", "cpu", "--tiny", "--json", str(tmp_path / "out.json"), "--minutes", "30"]
    assert main(words) == 0, capsys.readouterr().out
    stages = json.loads((tmp_path / "out.json").read_text())["stages"]
    assert list(stages) == list(acceptance.STAGES) and all(result["rows"] for result in stages.values())
    assert Task("cpu", tiny=True).goal(1.8) is None and Task("cuda").goal(1.8) == 1.8
