"""The augmentation benchmark runs and writes what it prints."""

import json
import subprocess
import sys
from pathlib import Path


def test_benchmark_writes_a_table(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.json"
    command = [sys.executable, "-m", "benchmarks.augment", "--num-images", "4", "--repeats", "1"]
    done = subprocess.run([*command, "--json", str(output)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["pipeline"]: row for row in json.loads(output.read_text())["rows"]}
    assert set(rows) == {"torchvision + PIL", "ours", "ours + normalize"}
    assert rows["torchvision + PIL"]["ratio"] == 1 and rows["ours"]["ratio"] > 1
    assert all(name in done.stdout for name in rows)
