"""A checkpoint that was changed anywhere, or cut anywhere, is known as such before it is used."""

import os
import random
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mst_transfer.files import checksums
from mst_transfer.files.checksums import (
    LIST,
    BrokenCheckpointError,
    forget_removed,
    move_checkpoint,
    verify_checkpoint,
    write_checkpoint,
    write_safetensors,
)

CONTENT = dict(state_dict=dict(a=torch.arange(300.0), b=torch.ones(7, dtype=torch.float16)), meta=dict(epoch=3))
SUFFIXES = pytest.mark.parametrize("suffix", [".pth", ".safetensors"])


def write(path: Path) -> bytes:
    if path.suffix == ".pth":
        write_checkpoint(path, CONTENT)
    else:
        write_safetensors(path, CONTENT["state_dict"], {"format": "x"})
    return path.read_bytes()


def is_refused(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    checksums._whole.clear()  # the same inode and size may be written within one tick of the clock
    try:
        verify_checkpoint(path)
    except BrokenCheckpointError:
        return True
    return False


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def some_damages(content: bytes) -> list[bytes]:
    """Flips of bits and cuts: many near both ends, where the format's own structures are, and some elsewhere."""
    draw, size = random.Random(0), len(content)
    bits = [*range(0, 160 * 8, 17), *range((size - 200) * 8, size * 8, 11), *draw.sample(range(size * 8), 40)]
    cuts = [*range(0, 200, 7), *range(size - 200, size, 5), size - 1, *draw.sample(range(size), 40)]
    return [flipped(content, bit) for bit in bits] + [content[:cut] for cut in cuts] + [content + b"\0"]


def all_damages(content: bytes) -> list[bytes]:
    size = len(content)
    return [flipped(content, bit) for bit in range(size * 8)] + [content[:cut] for cut in range(size)]


@SUFFIXES
@pytest.mark.parametrize("damages", [some_damages, pytest.param(all_damages, marks=pytest.mark.faults)])
def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path, suffix: str, damages: Callable) -> None:
    path = tmp_path / f"x{suffix}"
    content = write(path)
    assert verify_checkpoint(path) is True
    assert not [place for place, change in enumerate(damages(content)) if not is_refused(path, change)]


def test_torch_alone_would_not_notice(tmp_path: Path) -> None:
    """Why there are checksums: the CRCs of torch's archives are not compared."""
    path = tmp_path / "x.pth"
    torch.save(CONTENT, path)
    content = path.read_bytes()
    place = content.index(CONTENT["state_dict"]["a"].numpy().tobytes())
    path.write_bytes(flipped(content, 8 * place + 300))
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["a"], CONTENT["state_dict"]["a"])
    with pytest.raises(BrokenCheckpointError, match="does not match its CRC"):
        verify_checkpoint(path)


def test_files_of_others_are_checked_as_far_as_they_allow(tmp_path: Path) -> None:
    """Also those of our earlier releases, which had their checksum inside."""
    torch.save(CONTENT, tmp_path / "plain.pth")
    torch.save(CONTENT, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(CONTENT["state_dict"], tmp_path / "plain.safetensors")
    torch.save(CONTENT, tmp_path / "earlier.pth")
    with zipfile.ZipFile(tmp_path / "earlier.pth", "a") as archive:
        archive.comment = b"mst-transfer sha256:" + b"0" * 64
    save_file(CONTENT["state_dict"], tmp_path / "earlier.safetensors", metadata=dict(checksum="sha256:" + "0" * 64))
    assert all(verify_checkpoint(path) is False for path in sorted(tmp_path.iterdir()))
    assert not (tmp_path / LIST).exists() and torch.load(tmp_path / "earlier.pth", weights_only=True)
    for name in ("plain.pth", "plain.safetensors", "earlier.safetensors"):
        content = (tmp_path / name).read_bytes()
        for cut in (0, 1, 100, len(content) // 2, len(content) - 1):
            assert is_refused(tmp_path / name, content[:cut])


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write(tmp_path / "x.pth")
    verify_checkpoint(tmp_path / "x.pth")
    monkeypatch.setattr(checksums, "_sha256", lambda *args: pytest.fail("read again"))
    verify_checkpoint(tmp_path / "x.pth")
    monkeypatch.undo()
    (tmp_path / "y").write_bytes(flipped(content, 900))
    (tmp_path / "y").replace(tmp_path / "x.pth")
    with pytest.raises(BrokenCheckpointError, match=r"x\.pth is broken: its content does not match its checksum"):
        verify_checkpoint(tmp_path / "x.pth")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="this system has no sha256sum")
def test_sha256sum_reads_the_list(tmp_path: Path) -> None:
    for name in ("x.pth", "x.safetensors", "two words.pth", "back\\slash.pth", "写.pth", "x.pth", "line\nbreak.pth"):
        write(tmp_path / name)
        assert verify_checkpoint(tmp_path / name) is ("\n" not in name)  # it has no place in a list of lines
    (tmp_path / "link.pth").symlink_to("x.pth")
    assert verify_checkpoint(tmp_path / "link.pth") and (tmp_path / LIST).read_bytes().count(b"\n") == 5
    command = ["sha256sum", "--check", "--strict", "--quiet", LIST]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "x.safetensors").write_bytes(b"changed")
    assert b"x.safetensors: FAILED" in subprocess.run(command, cwd=tmp_path, capture_output=True).stdout


def names_listed(folder: Path) -> list[str]:
    lines = (folder / LIST).read_text().splitlines() if (folder / LIST).exists() else []
    return [line.split("  ")[1] for line in lines]


def test_the_list_follows_the_files(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth", "c.pth"):
        write(tmp_path / name)
    (tmp_path / "a.pth").unlink()
    write(tmp_path / "b.pth")
    assert names_listed(tmp_path) == ["c.pth", "b.pth"]
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "d.pth").write_bytes(b"old")
    move_checkpoint(tmp_path / "b.pth", tmp_path / "moved" / "d.pth")
    assert verify_checkpoint(tmp_path / "moved" / "d.pth")
    torch.save(CONTENT, tmp_path / "plain.pth")
    move_checkpoint(tmp_path / "plain.pth", tmp_path / "moved" / "d.pth")  # over a file that is in the list
    assert verify_checkpoint(tmp_path / "moved" / "d.pth") is False and not names_listed(tmp_path / "moved")
    forget_removed(tmp_path)
    assert names_listed(tmp_path) == ["c.pth"]
    (tmp_path / "c.pth").unlink()
    forget_removed(tmp_path)
    assert not (tmp_path / LIST).exists()


def test_a_file_without_the_list_and_a_file_of_another_program(tmp_path: Path) -> None:
    write(tmp_path / "x.pth")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "x.pth", tmp_path / "elsewhere" / "x.pth")
    assert verify_checkpoint(tmp_path / "elsewhere" / "x.pth") is False
    torch.save(dict(other=1), tmp_path / "x.pth")
    with pytest.raises(BrokenCheckpointError, match=rf"checksum in {tmp_path / LIST}; if another.*take its line out"):
        verify_checkpoint(tmp_path / "x.pth")
    (tmp_path / LIST).write_bytes(b"a remark\n\xff\n" + b"0" * 64 + b" *other.pth\r\n")
    assert verify_checkpoint(tmp_path / "x.pth") is False


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("former", ["none", "listed", "of another program"])
def test_killed_around_the_rename_no_file_is_accused(tmp_path: Path, former: str, when: str) -> None:
    path = tmp_path / "x.pth"
    if former == "listed":
        write(path)
    elif former != "none":
        torch.save(dict(other=1), path)
    child = os.fork()
    if child == 0:
        replace = os.replace

        def deadly(source: str, target: Path) -> None:
            if when == "after" or target.name == LIST:
                replace(source, target)
            if target.name == path.name:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = deadly
        write_checkpoint(path, dict(new=1))
    os.waitpid(child, 0)
    assert names_listed(tmp_path) == ["x.pth"] * (1 if former == "none" else 2)
    if path.exists():
        assert verify_checkpoint(path) and ("new" in torch.load(path, weights_only=True)) == (when == "after")
    write(path)
    assert verify_checkpoint(path) and names_listed(tmp_path) == ["x.pth"]


def test_two_writers_lose_no_line(tmp_path: Path) -> None:
    children = []
    for writer in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            for count in range(20):
                write_checkpoint(tmp_path / f"{writer}_{count}.pth", dict(x=1))
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    assert len(names_listed(tmp_path)) == 40 and all(verify_checkpoint(path) for path in tmp_path.glob("*.pth"))


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "x.pth")
    digests, calls = checksums._digests, []

    def late(path: Path) -> tuple[str, ...]:
        calls.append(path)
        if len(calls) == 1:
            write_checkpoint(path, dict(new=1))
        return digests(path)

    monkeypatch.setattr(checksums, "_digests", late)
    assert verify_checkpoint(tmp_path / "x.pth") and len(calls) == 2
