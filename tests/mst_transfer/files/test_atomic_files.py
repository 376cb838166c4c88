"""A file appears whole or not at all, and what stood there before stays if it cannot be written."""

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from full_disks import largest_file, remount, small_disk

from mst_transfer.checkpoint import BackboneMetadata, save_backbone
from mst_transfer.files.atomic_files import FileNotWrittenError, remove_stale_temporaries, write_atomically
from mst_transfer.files.checksums import verify_checkpoint, write_checkpoint

SMALL, LARGE = dict(a=torch.zeros(10)), dict(a=torch.zeros(100_000))


def save_small_backbone(path: Path) -> None:
    tensors = {"patch_embed.proj.weight": torch.zeros(8, 3, 4, 4), "blocks.0.mlp.fc1.weight": torch.zeros(400, 250)}
    facts = dict(patch_size=4, img_size=(8, 8), embed_dim=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    save_backbone(path, tensors, BackboneMetadata("vit_tiny_patch16_224", {}, role="teacher", **facts))


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush the file, rename, flush the folder: in this order, else a loss of power leaves an empty file."""
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def note_replace(*names: str) -> None:
        done.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_checkpoint(tmp_path / "x.pth", SMALL)
    assert done == ["file", "rename", "folder"]


WRITERS = pytest.mark.parametrize(
    ("name", "save"),
    [
        pytest.param("x.pth", lambda path: write_checkpoint(path, LARGE), id="checkpoint"),
        pytest.param("x.safetensors", save_small_backbone, id="backbone"),
    ],
)


def check_refusal(path: Path, save: Callable[[Path], None], code: int, *words: str) -> None:
    """The old file stays, nothing else is there, and the message says what is needed."""
    path.write_bytes(b"old")
    with pytest.raises(FileNotWrittenError) as caught:
        save(path)
    assert caught.value.errno == code
    for part in (f"cannot write {path}: ", os.strerror(code), "it needs 40", "are free", "Next step: ", *words):
        assert part in str(caught.value)
    assert {one.name: one.read_bytes() for one in path.parent.iterdir()} == {path.name: b"old"}


@WRITERS
def test_a_file_too_large_leaves_the_old_one_and_no_litter(tmp_path: Path, name: str, save: Callable) -> None:
    with largest_file(50_000):
        check_refusal(tmp_path / name, save, errno.EFBIG, "raise the limit")
    save(tmp_path / name)
    assert verify_checkpoint(tmp_path / name)


@WRITERS
def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, name: str, save: Callable) -> None:
    with small_disk(tmp_path / "disk", 200) as disk:
        check_refusal(disk / name, save, errno.ENOSPC, "make space")
        remount(disk, "size=900k")
        save(disk / name)
        assert verify_checkpoint(disk / name)


def test_a_read_only_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200) as disk:
        (disk / "x.pth").write_bytes(b"old")
        remount(disk, "ro")
        with pytest.raises(FileNotWrittenError, match=r"x\.pth: Read-only file system.*mount that disk for writing"):
            write_checkpoint(disk / "x.pth", SMALL)
        assert (disk / "x.pth").read_bytes() == b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileNotWrittenError, match="give yourself the right"):
        write_checkpoint(tmp_path / "x.pth", SMALL)


def killed_while_writing(path: Path, seconds: float) -> None:
    """A child writes the checkpoint over and over, and is killed so long after it has begun."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b".")
        while True:
            write_checkpoint(path, LARGE)
    os.read(reader, 1)
    os.close(reader), os.close(writer)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def kills(tmp_path: Path, number: int) -> tuple[int, int]:
    """Numbers of kills that left a temporary file, and of temporary files that were not removed.

    Kills go on, up to ten times as many, until one has left a file: a slow machine may write little in the time.
    """
    draw, littered, left = random.Random(0), 0, 0
    write_checkpoint(tmp_path / "x.pth", LARGE)
    for count in range(10 * number):
        if count >= number and littered:
            break
        killed_while_writing(tmp_path / "x.pth", draw.uniform(0.001, 0.05))
        verify_checkpoint(tmp_path / "x.pth")
        littered += len(list(tmp_path.iterdir())) > 1
        remove_stale_temporaries(tmp_path)
        left += len(list(tmp_path.iterdir())) - 1
    return littered, left


@pytest.mark.parametrize("number", [12, pytest.param(150, marks=pytest.mark.faults)])
def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path, number: int) -> None:
    littered, left = kills(tmp_path, number)
    assert littered > number // 10 - 1 and not left


def test_what_a_living_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    """Two runs may share a folder for a while: a queue starts the next one before the last has ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        write_atomically(tmp_path / "x", lambda path: (os.write(writer, b"."), time.sleep(60)))
    os.read(reader, 1)
    (living,) = tmp_path.iterdir()
    for name in (".y.abc.tmp", ".tmpa1B2c3", ".tmp", ".tmpfiles", "x.tmpa1B2c3"):  # the second is one of safetensors'
        (tmp_path / name).touch()
    assert remove_stale_temporaries(tmp_path) == [".tmpa1B2c3", ".y.abc.tmp"] and living.exists()
    for name in (".tmp", ".tmpfiles", "x.tmpa1B2c3"):
        (tmp_path / name).unlink()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert remove_stale_temporaries(tmp_path) == [living.name] and not list(tmp_path.iterdir())
