"""The Swin benchmark checks that all backbones agree, runs and writes what it prints."""

import json
import subprocess
import sys
from pathlib import Path


def test_benchmark_writes_a_table(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.json"
    command = [sys.executable, "-m", "benchmarks.swin", "--sizes", "40x60", "--repeats", "1", "--json", str(output)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = json.loads(output.read_text())["tables"]["40x60"]
    assert table["difference"] < 1e-5
    assert {(row["work"], row["backbone"]) for row in table["rows"]} == {
        (work, backbone) for work in ("infer", "train") for backbone in ("ours", "mmdet", "mmseg")
    }
    assert all(row["ratio"] == 1 for row in table["rows"] if row["backbone"] == "ours")
    assert all(row["saved_mb"] > 0 for row in table["rows"] if row["work"] == "train")
