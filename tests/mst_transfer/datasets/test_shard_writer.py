"""Shards: the photos as they were, for WebDataset too; stopped and gone on with; indexed, verified, damaged."""

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import bad_images
import pytest

from mst_transfer.cli.main import main
from mst_transfer.datasets import shard_writer
from mst_transfer.datasets.shard_writer import index_shards, member_names, verify_shards, write_shards
from mst_transfer.files.image_folder import find_images
from mst_transfer.files.shards import HEADER, SAMPLES, Shards

JPEG = bad_images.encode(bad_images.Image.fromarray(bad_images.PHOTO), "JPEG")
ODD = [
    "a.jpg",
    "a.png",
    "a.JPG",
    "a.b.jpg",
    "a%2Eb.jpg",
    "b/__x__/c.jpg",
    "__y__/c.jpg",
    "b.d/é 1.jpg",
    "b.d/" + "n" * 120 + ".jpg",
]


def photos(folder: Path, names: list[str], padding: int = 0) -> Path:
    """Files that differ in their last bytes."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + bytes([number % 256]) * (number + 1) + bytes(padding))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def members(shards: Path) -> list[tuple[str, bytes]]:
    """Names and contents of all files in all shards, in order, as ``tarfile`` reads them."""
    found = []
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [(member.name, tar.extractfile(member).read()) for member in tar]
    return found


def test_photos_are_there_unchanged_in_the_order_of_the_folder(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "in", ODD), tmp_path / "out"
    said = write_shards(str(folder), str(out), 5_000, 2)
    paths = find_images(folder)
    assert [data for _, data in members(out)] == [Path(path).read_bytes() for path in paths]
    shards = Shards(str(out))
    assert len(shards) == 9 and said.startswith(f"{out}: 9 photos in {len(shards.shards)} shards of ")
    assert [shards.read(index) for index in range(9)] == [Path(path).read_bytes() for path in paths]
    assert all(size <= 10_240 for _, size in shards.shards) and len(shards.shards) > 2
    assert [shards.path(i).partition(".tar/")[2] for i in range(9)] == [name for name, _ in members(out)]
    assert sorted(contents(out)) == sorted([HEADER, SAMPLES, "mst_shards.names", *(name for name, _ in shards.shards)])
    assert verify_shards(str(out), 2) == []


def test_webdataset_finds_as_many_samples_with_the_same_bytes(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="pip install webdataset")
    folder, out = photos(tmp_path / "in", ODD), tmp_path / "out"
    write_shards(str(folder), str(out), 5_000, 1)
    shards = sorted(map(str, out.glob("*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    found = [next(value for key, value in one.items() if not key.startswith("__")) for one in samples]
    assert found == [Path(path).read_bytes() for path in find_images(folder)]
    assert len({one["__key__"] for one in samples}) == len(ODD)


def test_names_are_plain_where_they_can_be() -> None:
    paths = ["/r/x/1.jpg", "/r/x/2.jpg", "/r/x/2.png", "/r/x/3.4.jpg", "/r/__m__/5%.jpg"]
    names = ["x/1.jpg", "x/2.jpg", "x/2%png.png", "x/3%2E4.jpg", "%5F_m__/5%25.jpg"]
    assert member_names(paths, "/r") == names


def test_what_is_no_image_stays_a_sample_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for case in bad_images.EVERY:
        case.make(folder)
    assert main(["shard", str(folder), str(out)]) == 0
    shards, paths = Shards(str(out)), find_images(folder)
    assert len(shards) == len(paths)
    for index, path in enumerate(paths):
        if os.path.isfile(path) and os.path.getsize(path):
            assert members(out)[index][1] == Path(path).read_bytes()
    named = {line.partition("\t")[0] for line in (out / "unreadable_images.txt").read_text().splitlines()}
    assert {str(folder / name) for name in ("pipe.jpg", "bomb.png", "text.jpg", "link_broken.jpg")} <= named
    assert f"{len(named)} are no readable images" in capsys.readouterr().out


SLOWLY = """
import sys, time
from mst_transfer.cli.main import main
from mst_transfer.datasets import shard_writer
read = shard_writer.read_image_file
shard_writer.read_image_file = lambda *words, **options: (time.sleep(0.04), read(*words, **options))[1]
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_it_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, number: int) -> None:
    folder, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    photos(folder, [f"{index:03d}.jpg" for index in range(36)], padding=95_000)
    (folder / "015.jpg").write_bytes(b"no image")
    write_shards(str(folder), str(whole), 10**6, 2)
    words = [sys.executable, "-c", SLOWLY, "shard", str(folder), str(out), "--shard-mb", "1", "--workers", "1"]
    begun = subprocess.Popen(words, stderr=subprocess.PIPE)
    while not (out / "shard-000000.tar").exists() and begun.poll() is None:
        time.sleep(0.01)
    begun.send_signal(number)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == (-number if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or b"the same command goes on" in said
    with pytest.raises(ValueError, match="is not finished. Next step"):
        Shards(str(out))
    with pytest.raises(ValueError, match="is not finished"):
        index_shards(str(out), 1)
    kept = (out / "shard-000000.tar").stat()
    assert main(words[3:]) == 0
    assert (out / "shard-000000.tar").stat().st_ino == kept.st_ino
    assert contents(out) == contents(whole) and len(Shards(str(out)).shards) == 4
    assert main(words[3:]) == 0  # complete
    assert (out / "shard-000000.tar").stat().st_ino == kept.st_ino


def test_other_photos_or_sizes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = photos(tmp_path / "in", ["1.jpg", "2.jpg"]), tmp_path / "out"
    write_shards(str(folder), str(out), 10**6, 1)
    with pytest.raises(ValueError, match="of another size. Next step: take another OUT"):
        write_shards(str(folder), str(out), 10**7, 1)
    photos(folder, ["3.jpg"])
    assert main(["shard", str(folder), str(out), "--shard-mb", "1"]) == 1
    assert "holds shards of other photos" in capsys.readouterr().err
    for words in ([], [str(folder)], [str(folder), str(out), "--index", str(out)], ["--index", "a", "--verify", "a"]):
        with pytest.raises(SystemExit):
            main(["shard", *words])


def foreign(folder: Path, num_shards: int = 2) -> Path:
    """Shards as img2dataset writes them: photo, caption and metadata of each sample."""
    folder.mkdir()
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(3):
                key = f"{shard:05d}{number:04d}"
                rest = {"jpg": JPEG + bytes([shard, number]), "txt": b"a caption", "json": b"{}", "seg.png": b"mask"}
                for ending, data in rest.items():
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return folder


def test_shards_of_others_get_an_index_from_their_headers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = foreign(tmp_path / "theirs")
    before = contents(out)
    assert main(["shard", "--index", str(out)]) == 0
    assert "6 photos in 2 shards" in (said := capsys.readouterr().out)
    assert "no images: {'.txt': 6, '.json': 6, '.seg.png': 6}" in said
    shards = Shards(str(out))
    assert [shards.read(i)[-2:] for i in range(6)] == [bytes([i // 3, i % 3]) for i in range(6)]
    assert not shards.has_checksums and before.items() <= contents(out).items()
    foreign(tmp_path / "more", 3)
    (tmp_path / "more" / "00002.tar").rename(out / "00002.tar")
    index_shards(str(out), 1)
    assert len(Shards(str(out))) == 9 and main(["shard", "--verify", str(out)]) == 0


def test_tar_files_that_are_cut_or_damaged_are_named(tmp_path: Path) -> None:
    out = foreign(tmp_path / "theirs", 1)
    path = out / "00000.tar"
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    hole = whole[:2048] + bytes(1024) + whole[3072:]  # looks like the end of an archive
    cuts = [hole, *[whole[:size] for size in (0, 100, 700, 1024, 1536, 1536 + 200, 4096, end - 1)]]
    for data in [*cuts, gzip.compress(whole), whole[:1536] + b"x" * 512 + whole[2048:], whole[:1536] + bytes(10)]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"00000\.tar is no plain tar file, is cut short, or is damaged"):
            index_shards(str(out), 1)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no \.tar file"):
        index_shards(str(out), 1)


def test_verifying_finds_one_changed_bit(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = photos(tmp_path / "in", [f"{index}.jpg" for index in range(9)]), tmp_path / "out"
    write_shards(str(folder), str(out), 5_000, 1)
    shards = Shards(str(out))
    shard, at = out / "shard-000001.tar", int(shards.samples[int(shards.bounds[1])]["offset"]) + 50
    data = bytearray(shard.read_bytes())
    data[at] ^= 1
    shard.write_bytes(data)
    assert main(["shard", "--verify", str(out)]) == 1
    assert f"1 photos have changed, such as {shards.path(int(shards.bounds[1]))}" in capsys.readouterr().out
    status = shard.stat()
    part = shard.with_suffix(".part.npz")  # as an index that was stopped leaves it
    part.write_bytes(b"")
    os.utime(part, ns=(status.st_mtime_ns + 1, status.st_mtime_ns + 1))
    assert main(["shard", "--verify", str(out)]) == 1
    shard.write_bytes((out / "shard-000000.tar").read_bytes()[: len(data)].ljust(len(data), b"\0"))
    assert "holds other photos than its index says" in verify_shards(str(out), 1)[0]


def test_photos_that_have_changed_or_gone_are_no_old_or_empty_samples(tmp_path: Path, monkeypatch) -> None:
    folder, out = photos(tmp_path / "in", [f"{index}.jpg" for index in range(4)]), tmp_path / "out"
    write_shards(str(folder), str(out), 5_000, 1)
    index = (out / HEADER).read_bytes()
    changed = folder / "2.jpg"
    changed.write_bytes(JPEG + b"z" * (changed.stat().st_size - len(JPEG)))
    with pytest.raises(ValueError, match="holds shards of other photos"):
        write_shards(str(folder), str(out), 5_000, 1)
    write_shards(str(folder), str(tmp_path / "again"), 5_000, 1)
    assert (tmp_path / "again" / HEADER).read_bytes() != index  # which tells a cache
    monkeypatch.setattr(shard_writer, "find_images", lambda root: [*find_images(root), str(folder / "gone.jpg")])
    with pytest.raises(ValueError, match="gone.jpg has gone since the command began.*put it back"):
        write_shards(str(folder), str(tmp_path / "third"), 5_000, 1)
