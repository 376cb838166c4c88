"""Which checkpoint ``--resume`` goes on from."""

from pathlib import Path

import pytest
import torch

from mst_transfer.files.checksums import BrokenCheckpointError, write_checkpoint
from mst_transfer.runs.checkpoints import find_checkpoint, latest_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (8, 9, 10):
        write_checkpoint(tmp_path / f"epoch_{step}.pth", dict(step=step, x=torch.zeros(1000)))
    (tmp_path / "last_checkpoint").write_text("elsewhere/epoch_10.pth")  # the folder was moved
    return tmp_path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[1500] ^= 16
    path.write_bytes(content)


def test_the_newest_whole_one_is_taken_and_the_others_named(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert find_checkpoint(folder, "auto") == str(folder / "epoch_10.pth")
    cut(folder / "epoch_10.pth")
    flip(folder / "epoch_9.pth")
    assert find_checkpoint(folder, "auto") == str(folder / "epoch_8.pth")
    remarks = capsys.readouterr().err.splitlines()
    named = [remark.partition(" is broken")[0].rpartition("/")[2] for remark in remarks]
    assert named == ["epoch_10.pth", "epoch_9.pth"]
    assert all(f"going on from {folder / 'epoch_8.pth'}" in remark for remark in remarks)


def test_a_broken_file_that_is_named_is_an_error_with_the_way_out(folder: Path) -> None:
    flip(folder / "epoch_10.pth")
    with pytest.raises(BrokenCheckpointError, match=r"epoch_10\.pth is broken.*take another checkpoint"):
        find_checkpoint(folder, str(folder / "epoch_10.pth"))
    with pytest.raises(FileNotFoundError, match=r"epoch_7\.pth does not exist; that folder has epoch_10\.pth, epoch_8"):
        find_checkpoint(folder, str(folder / "epoch_7.pth"))


def test_a_run_whose_checkpoints_are_all_broken_does_not_start_anew(folder: Path) -> None:
    for path in folder.glob("*.pth"):
        cut(path)
    with pytest.raises(BrokenCheckpointError, match=r"epoch_9\.pth is broken too .*start anew without --resume"):
        find_checkpoint(folder, "auto")


@pytest.mark.parametrize("pointer", [b"", b"\xff\xfe", b"else/epoch_11.pth", b"a\0b", None, b"else/epoch_8.pth"])
def test_a_pointer_chooses_and_one_to_nothing_does_no_harm(folder: Path, pointer: bytes | None) -> None:
    """A named file may have been removed before the next was complete."""
    (folder / "best_x_epoch_30.pth").touch()
    (folder / "last_checkpoint").unlink()
    if pointer is not None:
        (folder / "last_checkpoint").write_bytes(pointer)
    assert latest_checkpoint(folder) == folder / ("epoch_8.pth" if pointer == b"else/epoch_8.pth" else "epoch_10.pth")


def test_no_checkpoint_is_a_beginning(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert find_checkpoint(folder, "auto") is None and latest_checkpoint(folder) is None
