"""The breaks of ``tests/breaks`` can still be made: whoever moves the code takes them along."""

import json
import re
import subprocess
import sys
from pathlib import Path


def test_every_break_can_be_made(root: Path) -> None:
    done = subprocess.run([sys.executable, "tests/breaks", "--check"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_break_is_described_and_has_tests(root: Path) -> None:
    breaks = json.loads((root / "tests" / "breaks" / "breaks.json").read_text())
    assert len(breaks) >= 60
    for item in breaks:
        assert set(item) == {"area", "what", "file", "old", "new", "tests"} and item["what"].endswith("."), item
        assert "\n" not in item["old"] and item["tests"], item
        for test in item["tests"]:
            file, *names = test.split("[")[0].split("::")
            text = (root / file).read_text()
            assert all(re.search(rf"^ *(?:def|class) {name}\b", text, re.MULTILINE) for name in names), test
