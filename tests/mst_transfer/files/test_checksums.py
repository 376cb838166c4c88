"""A checkpoint that was changed anywhere, or cut anywhere, is known as such before it is used."""

import random
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mst_transfer.files import checksums
from mst_transfer.files.checksums import BrokenCheckpointError, verify_checkpoint, write_checkpoint

CONTENT = dict(state_dict=dict(a=torch.arange(300.0), b=torch.ones(7, dtype=torch.float16)), meta=dict(epoch=3))


def write(path: Path) -> bytes:
    if path.suffix == ".pth":
        write_checkpoint(path, CONTENT)
    else:
        metadata = {"format": "x", checksums.HEADER_ENTRY: checksums.NO_DIGEST}
        checksums.write_atomically(
            path, checksums.sealed(lambda temporary: save_file(CONTENT["state_dict"], temporary, metadata=metadata))
        )
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


def damages(content: bytes, number: int) -> list[bytes]:
    """Flips of bits and cuts: all near both ends, where the format's own structures are, and ``number`` elsewhere."""
    draw, size = random.Random(0), len(content)
    ends = [*range(0, min(size, 160) * 8, 17), *range(max(size - 200, 0) * 8, size * 8, 11)]
    bits = [*ends, *(draw.randrange(size * 8) for _ in range(number))]
    cuts = [
        *range(0, 200, 7),
        *range(max(size - 200, 0), size, 5),
        size - 1,
        *(draw.randrange(size) for _ in range(number)),
    ]
    return [flipped(content, bit) for bit in bits] + [content[:cut] for cut in cuts] + [content + b"\0"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path, suffix: str) -> None:
    content = write(tmp_path / f"whole{suffix}")
    assert verify_checkpoint(tmp_path / f"whole{suffix}") is True
    missed = [change for change in damages(content, 40) if not is_refused(tmp_path / f"x{suffix}", change)]
    assert not missed


@pytest.mark.faults
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_really_every_bit_and_every_cut(tmp_path: Path, suffix: str) -> None:
    content = write(tmp_path / f"whole{suffix}")
    changes = [flipped(content, bit) for bit in range(len(content) * 8)] + [
        content[:cut] for cut in range(len(content))
    ]
    assert not [index for index, change in enumerate(changes) if not is_refused(tmp_path / f"x{suffix}", change)]


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


@pytest.mark.parametrize("mmap", [False, True])
def test_files_with_a_checksum_are_read_by_everyone(tmp_path: Path, mmap: bool) -> None:
    write(tmp_path / "x.pth")
    loaded = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mmap)
    torch.testing.assert_close(loaded, CONTENT, rtol=0, atol=0)
    assert zipfile.ZipFile(tmp_path / "x.pth").testzip() is None
    write(tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("a"), CONTENT["state_dict"]["a"]) and "checksum" in file.metadata()


def test_files_of_others_are_checked_as_far_as_they_allow(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "plain.pth")
    torch.save(CONTENT, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(CONTENT["state_dict"], tmp_path / "plain.safetensors")
    for name in ("plain.pth", "legacy.pth", "plain.safetensors"):
        assert verify_checkpoint(tmp_path / name) is False
    for name in ("plain.pth", "plain.safetensors"):
        content = (tmp_path / name).read_bytes()
        for cut in (0, 1, 100, len(content) // 2, len(content) - 1):
            assert is_refused(tmp_path / name, content[:cut])


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write(tmp_path / "x.pth")
    verify_checkpoint(tmp_path / "x.pth")
    monkeypatch.setattr(checksums, "_digest_of", lambda *args: pytest.fail("read again"))
    verify_checkpoint(tmp_path / "x.pth")
    monkeypatch.undo()
    (tmp_path / "y").write_bytes(flipped(content, 900))
    (tmp_path / "y").replace(tmp_path / "x.pth")
    with pytest.raises(BrokenCheckpointError, match=r"x\.pth is broken: its content does not match its checksum"):
        verify_checkpoint(tmp_path / "x.pth")
