"""A checkpoint that was changed anywhere, or cut anywhere, is known as such before it is used, or reads as before."""

import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mst_transfer.files import checksums
from mst_transfer.files.checksums import (
    BrokenCheckpointError,
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


def read(path: Path) -> dict[str, Any]:
    if path.suffix == ".pth":
        return torch.load(path, weights_only=True)
    with safe_open(path, framework="pt") as file:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # no longer of the file
        return dict(state_dict=tensors, meta=file.metadata()["format"])


def is_refused(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    checksums._whole.clear()  # the same inode and size may be written within one tick of the clock
    try:
        verify_checkpoint(path)
    except BrokenCheckpointError:
        return True
    return False


def is_harmless(path: Path, before: dict[str, Any]) -> bool:
    """Of padding and the like: what is read is what was written, or a reader refuses it."""
    try:
        after = read(path)
    except Exception:
        return True
    same = [torch.equal(one, after["state_dict"][name]) for name, one in before["state_dict"].items()]
    return all(same) and before["meta"] == after["meta"] and len(same) == len(after["state_dict"])


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def some_damages(content: bytes) -> list[bytes]:
    """Flips of bits and cuts: many near both ends, where the format's own structures are, and some elsewhere."""
    draw, size = random.Random(0), len(content)
    bits = [*range(0, 160 * 8, 17), *range((size - 200) * 8, size * 8, 11), *draw.sample(range(size * 8), 40)]
    bits += [8 * (match.start() + 38) + 4 for match in re.finditer(rb"PK\x01\x02", content)]  # makes a record a folder
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
    before, changes = read(path), damages(content)
    passed = [change for change in changes if not is_refused(path, change)]
    assert len(passed) < len(changes) / 2
    for change in passed:
        path.write_bytes(change)
        assert is_harmless(path, before)


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
    torch.save(CONTENT, tmp_path / "plain.pth")
    torch.save(CONTENT, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(CONTENT["state_dict"], tmp_path / "plain.safetensors")
    assert [verify_checkpoint(path) for path in sorted(tmp_path.iterdir())] == [False, True, False]
    for name in ("plain.pth", "plain.safetensors"):
        content = (tmp_path / name).read_bytes()
        for cut in (0, 1, 100, len(content) // 2, len(content) - 1):
            assert is_refused(tmp_path / name, content[:cut])


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write(tmp_path / "x.pth")
    verify_checkpoint(tmp_path / "x.pth")
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda *args: pytest.fail("read again"))
    verify_checkpoint(tmp_path / "x.pth")
    monkeypatch.undo()
    (tmp_path / "y").write_bytes(flipped(content, 8 * (len(content) // 2)))
    (tmp_path / "y").replace(tmp_path / "x.pth")
    with pytest.raises(BrokenCheckpointError, match=r"x\.pth is broken: its record .* does not match its CRC"):
        verify_checkpoint(tmp_path / "x.pth")


def test_a_checkpoint_is_known_by_what_it_holds(tmp_path: Path) -> None:
    """Names, types, shapes and metadata count, too."""
    tensors, told = {"a": torch.zeros(4), "b": torch.zeros(())}, {"format": "x"}
    others = [({"b": tensors["a"], "a": tensors["b"]}, told), ({**tensors, "a": torch.zeros(2, 2)}, told)]
    others += [({**tensors, "a": torch.zeros(4, dtype=torch.int32)}, told), (tensors, {"format": "y"})]
    assert len({checksums.checksum_of(*one) for one in ((tensors, told), *others)}) == 5
