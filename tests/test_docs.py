"""Files that the documents name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
FILE = re.compile(r"(?<![\w/])((?:mst_transfer|pretrain|tests|tools|benchmarks|faults|fuzz)/[\w/]+\.(?:py|sh))")
TEST_ALONE = re.compile(r"(?<![\w/])(test_\w+\.py)")


def missing(text: str) -> list[str]:
    """Files named in a text, from the checkout's folder or from that of the tests, that are not there."""
    files = [name for name in FILE.findall(text) if not any((ROOT / base / name).is_file() for base in ("", "tests"))]
    return files + [name for name in TEST_ALONE.findall(text) if name not in TESTS]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_named_files_are_there(page: Path) -> None:
    assert missing(page.read_text(encoding="utf-8")) == []


def test_a_missing_file_is_seen() -> None:
    assert missing("`tools/nothing.sh`, `runs/…`, `test_nothing.py`") == ["tools/nothing.sh", "test_nothing.py"]
