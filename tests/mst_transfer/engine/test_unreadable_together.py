"""Two processes, each with workers of its own, end with one list."""

from pathlib import Path

import unreadable_together
from process_groups import run_group

from mst_transfer.runs.unreadable_images import read_list


def test_lists_of_two_processes_become_one(tmp_path: Path) -> None:
    work_dir = tmp_path / "run"
    found = run_group(unreadable_together.transfer, 2, tmp_path / "all", work_dir, 0.03)
    assert found == [({"skipped": 3, "list": "unreadable_images.txt"}, "")] * 2
    assert [path.name for path in work_dir.iterdir()] == ["unreadable_images.txt"]
    assert list(read_list(work_dir / "unreadable_images.txt")) == ["0.jpg", "1.jpg", "common.jpg"]


def test_the_limit_is_of_all_processes_together(tmp_path: Path) -> None:
    """Two each are allowed, three in all are not; both say so."""
    found = run_group(unreadable_together.transfer, 2, tmp_path / "all", tmp_path / "run", 0.02)
    assert all(info is None and "3 of 100 images cannot be read, more than 2" in text for info, text in found)
