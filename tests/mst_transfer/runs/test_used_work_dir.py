"""A new run does not mix its checkpoints with those of another."""

from pathlib import Path

import pytest
from mst_transfer.runs.used_work_dir import UsedWorkDirError, begin_anew, check_unused


def test_a_used_folder_is_refused_or_its_files_are_set_aside(tmp_path: Path) -> None:
    check_unused(tmp_path / "missing")
    for name in ("results.json", "config.py", "teacher.safetensors"):
        (tmp_path / name).write_text("earlier")
    check_unused(tmp_path)
    assert begin_anew(tmp_path, fresh=True) is None  # no checkpoint: nothing is moved
    with pytest.raises(UsedWorkDirError, match=r"earlier run: teacher\.safetensors"):
        check_unused(tmp_path, writes_backbones=True)  # as a pre-training does, over the one that is there
    for name in ("epoch_1.pth", "epoch_2.pth", "best_x.pth", "iter_7.pth", "last_checkpoint", "notes.txt"):
        (tmp_path / name).write_text("earlier")
    with pytest.raises(UsedWorkDirError, match=r"best_x\.pth, epoch_1\.pth, epoch_2\.pth and 1 more.*--fresh"):
        begin_anew(tmp_path, fresh=False)
    assert begin_anew(tmp_path, fresh=True) == tmp_path / "earlier_1"
    assert {path.name for path in tmp_path.iterdir()} == {"earlier_1", "notes.txt"}
    assert len(list((tmp_path / "earlier_1").iterdir())) == 8
    (tmp_path / "epoch_1.pth").write_text("later")
    assert begin_anew(tmp_path, fresh=True) == tmp_path / "earlier_2"
    assert (tmp_path / "earlier_1" / "epoch_1.pth").read_text() == "earlier"


def test_backbones_alone_are_kept_from_a_new_pretraining(tmp_path: Path) -> None:
    for name in ("student.safetensors", "iter_4_teacher.safetensors", "dino.safetensors"):
        (tmp_path / name).write_text("earlier")
    assert begin_anew(tmp_path, fresh=False) is None  # a head leaves them as they are
    assert begin_anew(tmp_path, fresh=True, writes_backbones=True) == tmp_path / "earlier_1"
    assert (tmp_path / "earlier_1" / "student.safetensors").read_text() == "earlier"
    assert begin_anew(tmp_path, fresh=False, writes_backbones=True) is None
