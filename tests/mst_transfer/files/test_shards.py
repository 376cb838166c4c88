"""Reading shards: hostile photos, damage, processes, few open files; and their cache."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bad_images
import numpy as np
import pytest

from mst_transfer.datasets.shard_writer import write_shards
from mst_transfer.files import shard_cache, shards
from mst_transfer.files.image_files import UnreadableImageError, read_image_file
from mst_transfer.files.photos import Photos
from mst_transfer.files.shard_cache import ShardCache
from mst_transfer.files.shards import HEADER, NAMES, SAMPLES, Shards

JPEG = bad_images.encode(bad_images.Image.fromarray(bad_images.PHOTO), "JPEG")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Ten photos in five shards of 10,240 bytes."""
    (tmp_path / "in").mkdir()
    for number in range(10):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(JPEG + bytes([number]) * 2_000)
    write_shards(str(tmp_path / "in"), str(tmp_path / "out"), 8_000, 1)
    assert [size for _, size in Shards(str(tmp_path / "out")).shards] == [10_240] * 5
    return tmp_path / "out"


@pytest.mark.parametrize("case", bad_images.BROKEN, ids=lambda case: case.name)
def test_hostile_photos_are_refused_as_from_files(tmp_path: Path, case: bad_images.Case) -> None:
    (tmp_path / "in").mkdir()
    path = case.make(tmp_path / "in")
    if not path.is_file():
        pytest.skip("has no bytes")
    (tmp_path / "in" / "z.jpg").write_bytes(JPEG)
    write_shards(str(tmp_path / "in"), str(tmp_path / "out"), 10**6, 1)
    photos, files = Photos(tmp_path / "out"), Photos(tmp_path / "in")
    try:
        expected = read_image_file(path)
    except UnreadableImageError as error:
        with pytest.raises(UnreadableImageError) as found:
            photos.read(0)
        assert str(found.value) == str(error)
    else:
        assert photos.read(0) == expected == files.read(0)


def test_damage_while_a_run_goes_on_is_of_the_photos(made: Path) -> None:
    opened = Shards(str(made))
    (made / "shard-000001.tar").unlink()
    data = (made / "shard-000002.tar").read_bytes()
    (made / "shard-000002.tar").write_bytes(data[:1_000])
    (made / "shard-000003.tar").unlink()
    os.mkfifo(made / "shard-000003.tar")
    with open(made / "shard-000004.tar", "r+b") as file:
        file.seek(int(opened.samples[8]["offset"] + opened.samples[8]["size"]) - 1)
        file.write(b"x")  # behind the picture's end
    for index, reason in ((2, "No such file"), (4, "is cut short"), (6, "a pipe"), (8, "not match its checksum")):
        with pytest.raises(UnreadableImageError, match=reason):
            opened.read(index)
    assert opened.read(0).endswith(bytes(2_000))


def test_missing_and_damaged_shards_and_indexes_are_refused_at_the_start(made: Path) -> None:
    (made / "shard-000001.tar").rename(made / "aside")
    with open(made / "shard-000003.tar", "ab") as file:
        file.write(b"x")
    expected = r"2 of 5 shards are missing or not as long .* shard-000001\.tar, shard-000003\.tar\. Next step"
    with pytest.raises(FileNotFoundError, match=expected):
        Photos(made)
    (made / "aside").rename(made / "shard-000001.tar")
    os.truncate(made / "shard-000003.tar", 10_240)
    held = {name: (made / name).read_bytes() for name in (HEADER, SAMPLES, NAMES)}
    assert len(Photos(made)) == 10
    bad = [(HEADER, b"{}"), (HEADER, held[HEADER].replace(b"shard-000000", b"../shard-000")), (HEADER, b"\xff")]
    bad += [(SAMPLES, held[SAMPLES][:-1]), (SAMPLES, b""), (SAMPLES, pickle.dumps([1])), (NAMES, b"")]
    for name, data in bad:
        (made / name).write_bytes(data)
        with pytest.raises(ValueError, match="damaged"):
            Photos(made)
        (made / name).write_bytes(held[name])


def read_all(opened: Shards) -> list[bytes]:
    return [opened.read(index) for index in (9, 0, 5, 3, 7, 1)]


def in_processes(number: int, function: Callable, arguments: list) -> list:
    """``Pool.map`` of forked processes, which end by themselves: some take SIGTERM as an earlier test has set it."""
    with multiprocessing.get_context("fork").Pool(number) as pool:
        found = pool.map(function, arguments)
        pool.close()
        pool.join()
    return found


def test_processes_open_files_of_their_own(made: Path) -> None:
    opened = Shards(str(made))
    expected = read_all(opened)
    assert in_processes(2, read_all, [opened] * 4) == [expected] * 4
    assert read_all(opened) == expected
    state = pickle.dumps(opened)
    code = "import pickle, sys; sys.stdout.buffer.write(pickle.load(sys.stdin.buffer).read(7))"
    read = subprocess.run([sys.executable, "-c", code], input=state, capture_output=True, check=True)
    assert read.stdout == opened.read(7) and len(state) < 2_000


def test_few_files_are_open(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MAX_OPEN", 2)
    opened, before = Shards(str(made)), len(os.listdir("/proc/self/fd"))
    read_all(opened)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del opened
    assert len(os.listdir("/proc/self/fd")) <= before


class TestCache:
    """Four shards of 10,240 bytes fit."""

    @pytest.fixture
    def fetched(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of the shards that are fetched."""
        names, copy = [], ShardCache._copy

        def note(self: ShardCache, name: str, temporary: str, is_shard: bool = False) -> None:
            names.extend([name] * is_shard)
            copy(self, name, temporary, is_shard)

        monkeypatch.setattr(ShardCache, "_copy", note)
        return names

    @pytest.fixture
    def elsewhere(self, made: Path) -> str:
        """The shards at an address of fsspec's that only this process, and those that are forked from it, have."""
        fsspec = pytest.importorskip("fsspec")
        files = fsspec.filesystem("memory")
        files.store.clear()
        for path in made.iterdir():
            files.pipe(f"/bucket/set/{path.name}", path.read_bytes())
        return "memory://bucket/set"

    def cached(self, url: str, top: Path, shards_of_room: float = 4) -> Shards:
        return Shards(url, ShardCache(url, shards_of_room * 10_240 / 1e9, top))

    def test_shards_come_once_and_the_oldest_go(
        self, elsewhere: str, made: Path, tmp_path: Path, fetched: list
    ) -> None:
        opened, local = self.cached(elsewhere, tmp_path / "cache"), Shards(str(made))
        for step, index in enumerate([0, 2, 4, 6, 1, 0, 3, 8]):
            assert opened.read(index) == local.read(index)
            for path in Path(opened.folder).glob("*.tar"):  # a clock of whole steps
                if path.name == f"shard-{index // 2:06d}.tar":
                    os.utime(path, (step + 1, step + 1))
        assert fetched == [f"shard-{number:06d}.tar" for number in (0, 1, 2, 3, 4)]
        assert sorted(path.name for path in Path(opened.folder).glob("*.tar")) == [
            f"shard-{number:06d}.tar" for number in (0, 1, 3, 4)
        ]
        again = self.cached(elsewhere, tmp_path / "cache")
        assert again.read(9) == local.read(9) and len(fetched) == 5
        assert again.path(3) == "memory://bucket/set/shard-000001.tar/3.jpg"

    def test_processes_share_it(self, elsewhere: str, tmp_path: Path, made: Path) -> None:
        opened, local = self.cached(elsewhere, tmp_path / "cache", 100), Shards(str(made))
        assert in_processes(4, read_all, [opened] * 8) == [read_all(local)] * 8
        assert len(list(Path(opened.folder).glob("*.tar"))) == 5 and not list(Path(opened.folder).glob(".*.tmp"))

    def test_another_index_empties_it(self, elsewhere: str, tmp_path: Path, fetched: list) -> None:
        import fsspec

        self.cached(elsewhere, tmp_path / "cache").read(0)
        files = fsspec.filesystem("memory")
        files.pipe(f"/bucket/set/{HEADER}", files.cat(f"/bucket/set/{HEADER}") + b" ")
        self.cached(elsewhere, tmp_path / "cache").read(0)
        assert fetched == ["shard-000000.tar"] * 2

    def test_faults_elsewhere(self, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fsspec

        monkeypatch.setattr(shard_cache, "_PAUSES", (0,))
        files, opened = fsspec.filesystem("memory"), self.cached(elsewhere, tmp_path / "cache")
        files.rm("/bucket/set/shard-000001.tar")
        with pytest.raises(UnreadableImageError, match=r"shard-000001\.tar cannot be fetched: it does not exist"):
            opened.read(2)
        files.pipe("/bucket/set/shard-000002.tar", b"short")
        with pytest.raises(UnreadableImageError, match=r"shard-000002\.tar is cut short"):
            opened.read(4)
        asked = []
        monkeypatch.setattr(type(files), "cat_file", lambda *words: asked.append(words) or 1 / 0)
        with pytest.raises(UnreadableImageError, match="cannot be fetched: division by zero"):
            opened.read(6)
        assert len(asked) == 2 and opened.read  # tried once more
        monkeypatch.undo()
        with pytest.raises(FileNotFoundError, match=r"2 of 5 shards .* shard-000001\.tar, shard-000002\.tar"):
            self.cached(elsewhere, tmp_path / "cache")

    def test_what_cannot_be_is_refused_at_the_start(
        self, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ValueError, match="memory://nowhere cannot be fetched: it does not exist"):
            Photos("memory://nowhere", cache_dir=str(tmp_path / "cache"))
        for address in ("https://me:secret@host/set", "https://host/set?Signature=secret"):
            with pytest.raises(ValueError, match="would be logged") as error:
                Photos(address)
            assert "secret" not in str(error.value)
        with pytest.raises(ValueError, match="does not hold two shards"):
            Photos(elsewhere, cache_gb=15_000 / 1e9, cache_dir=str(tmp_path / "cache"))
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(ValueError, match="Next step: pip install fsspec s3fs"):
            Photos("s3://bucket/set", cache_dir=str(tmp_path / "cache"))
        monkeypatch.setitem(sys.modules, "fsspec.core", None)
        with pytest.raises(ValueError, match="Next step: pip install fsspec$"):
            Photos(elsewhere, cache_dir=str(tmp_path / "cache"))


def test_orders_by_shards_use_up_some_before_others(made: Path, tmp_path: Path) -> None:
    photos, generator = Photos([made, tmp_path / "in", made]), np.random.default_rng
    assert (photos.permute(generator(1), None) == generator(1).permutation(30)).all()
    shard = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, *[5] * 10, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10])
    for width in (1, 2, 3, 11, 99):
        order = photos.permute(generator(1), width)
        assert sorted(order) == list(range(30)) and (order != photos.permute(generator(2), width)).any()
        seen = [list(dict.fromkeys(shard[order]))[at : at + width] for at in range(0, 11, width)]
        at = 0
        for group in seen:
            count = sum((shard == number).sum() for number in group)
            assert set(shard[order[at : at + count]]) == set(group)
            at += count
    few = Photos([made, tmp_path / "in"], max_images=7)
    assert sorted(few.permute(generator(0), 2)) == list(range(7))
    assert [os.path.basename(few[index]) for index in range(7)] == [f"{n}.jpg" for n in (0, 2, 5, 8, 1, 4, 7)]
