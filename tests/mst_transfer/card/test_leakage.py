"""The search for validation images that a checkpoint has seen: copies, unrelated images, drives, broken files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.leakage import KINDS, frames_apart, plant
from mst_transfer.card import leakage
from mst_transfer.card.leakage import CELLS, SIDE, THRESHOLD, find_leaks
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data
from mst_transfer.files.image_folder import find_images


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample world, whose scenes share their textures."""
    folder = tmp_path_factory.mktemp("sample")
    make_sample_data(folder, SampleDataRequest(num_photos=60, num_train=1, num_val=30))
    return folder


@pytest.fixture(scope="module")
def scenes(sample: Path) -> list[str]:
    """Its photos."""
    return find_images(sample / "photos")


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[str]:
    """A hundred small photographs of ten classes, and thirty larger ones."""
    small, large = (
        sorted(map(str, (shared_data / name).rglob("*.jpg"))) for name in ("photos/train", "coco_mini/train")
    )
    return small[::80] + large[::13]


# Of the scenes, whose patterns are as fine as a thumbnail's pixels, crops and small copies are found less often.
WHOLE = [kind for kind in KINDS if "JPEG" in kind or kind in ("resized to 0.5×", "resized to 2×", "mirrored")]


@pytest.mark.parametrize("world, kind", [("scenes", kind) for kind in WHOLE] + [("photos", kind) for kind in KINDS])
def test_copies_are_found(world: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """95 % of them and all but one of a few, and nearly nothing else is."""
    pool: list[str] = request.getfixturevalue(world)
    copies = plant(pool[::10], kind, tmp_path)
    pairs = find_leaks([*copies], ("pool", pool), cache=tmp_path.parent / "cache.npz").pairs
    found = {(pair[0], pair[2]) for pair in pairs}
    assert len(found & copies.items()) >= min(0.95 * len(copies), len(copies) - 1)
    assert len(found - copies.items()) <= 0.01 * len(copies)


def test_an_original_larger_than_its_crop_is_found_in_the_other_direction(scenes: list[str], tmp_path: Path) -> None:
    copies = plant(scenes[:8], "crop of 70%", tmp_path)
    assert find_leaks(scenes, ("pre-training", [*copies])).leaked == set(scenes[:8])


def test_unrelated_scenes_are_not_flagged(sample: Path, scenes: list[str]) -> None:
    assert not find_leaks(find_images(sample / "coco" / "val"), ("train", scenes)).pairs


def test_frames_of_one_drive(shared_data: Path) -> None:
    """A fifteenth of a second apart they are near duplicates, ten seconds apart they are not."""
    frames = sorted(map(str, (shared_data / "camvid/leftImg8bit").rglob("*.jpg")))
    near, far = (frames_apart(frames, seconds)[::8] for seconds in (1 / 15, 10))
    assert np.mean([bool(find_leaks([a], ("train", [b])).pairs) for a, b in near]) > 0.9
    assert np.mean([bool(find_leaks([a], ("train", [b])).pairs) for a, b in far]) < 0.05


def test_cells_are_the_means_of_a_plain_loop(scenes: list[str]) -> None:
    """The first window is the whole thumbnail; bins of ``CELLS`` overlap where they do not divide its side."""
    thumbnail = leakage._thumbnails(scenes[:1])[scenes[0]]
    edges = [(i * SIDE // CELLS, -(-(i + 1) * SIDE // CELLS)) for i in range(CELLS)]
    means = np.array([thumbnail[a:b, c:d].mean() for a, b in edges for c, d in edges])
    expected = (means - means.mean()) / np.linalg.norm(means - means.mean())
    np.testing.assert_allclose(leakage._windows(thumbnail[None])[0, 0].numpy(), expected, atol=1e-5)


def test_the_score_is_numpys_correlation_of_what_lies_between_two_blurs(scenes: list[str]) -> None:
    one = leakage._thumbnails(scenes[:1])[scenes[0]]
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 60, one.shape), (0, 0), 1)
    other = np.clip(one + noise, 0, 255).astype(np.uint8)
    edges = [cv2.GaussianBlur(t * 1.0, (0, 0), 0.7) - cv2.GaussianBlur(t * 1.0, (0, 0), 4) for t in (one, other)]
    inner = [edge[4:-4, 4:-4].ravel() for edge in edges]
    assert leakage._score(one, other) == pytest.approx(np.corrcoef(inner)[0, 1], abs=0.02)
    assert leakage._score(one, one) == pytest.approx(1, abs=1e-4)


def test_flat_images_are_no_copies_of_each_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.clip(rng.normal(90, 1, (80, 80)), 0, 255).astype(np.uint8))
    assert not find_leaks([str(tmp_path / "a.png")], ("train", [str(tmp_path / "b.png")])).pairs


def test_files_that_cannot_be_read_are_counted_and_named(scenes: list[str], tmp_path: Path) -> None:
    broken = {
        name: tmp_path / name for name in ("empty.png", "cut.png", "text.jpg", "missing.png", "folder.png", "tiny.png")
    }
    broken["empty.png"].touch()
    broken["cut.png"].write_bytes(Path(scenes[0]).read_bytes()[:900])
    broken["text.jpg"].write_text("no image")
    broken["folder.png"].mkdir()
    cv2.imwrite(str(broken["tiny.png"]), np.zeros((1, 300, 3), np.uint8))  # a line of pixels can be read
    names = [*map(str, broken.values())]
    found = find_leaks([scenes[0], names[0]], ("train", [scenes[0], *names]), ("photos", names[:2]))
    assert found.leaked == {scenes[0]}
    assert found.val["unreadable"] == names[:1]
    assert [pool["unreadable"] for pool in found.pools] == [names[:-1], names[:2]]
    assert "8 files could not be read" in found.sentence()
    assert not find_leaks(names[:1], ("train", scenes[:2])).pairs


def test_thumbnails_are_kept(scenes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read once, and again when it has changed; a broken cache is replaced."""
    read, image = [], leakage.read_image
    monkeypatch.setattr(leakage, "read_image", lambda path, **options: read.append(path) or image(path, **options))
    own, cache = str(tmp_path / "own.png"), tmp_path / "card" / "thumbnails.npz"
    Path(own).write_bytes(Path(scenes[3]).read_bytes())

    def search() -> tuple[list[str], list[str]]:
        read.clear()
        found = find_leaks([own], ("train", scenes[:5]), cache=cache)
        return [pair[2] for pair in found.pairs], list(read)

    assert search() == ([scenes[3]], [own, *scenes[:5]])
    assert search() == ([scenes[3]], [])
    Path(own).write_bytes(Path(scenes[4]).read_bytes())
    assert search() == ([scenes[4]], [own])
    cache.write_bytes(cache.read_bytes()[:2000])
    assert search() == ([scenes[4]], [own, *scenes[:5]])
    assert search() == ([scenes[4]], [])


def test_processes_change_nothing(scenes: list[str]) -> None:
    alone, together = (find_leaks(scenes[:3], ("train", scenes[:9]), num_processes=n) for n in (0, 2))
    assert alone == together and len(alone.leaked) == 3


def test_wrong_input_is_refused() -> None:
    for threshold in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"threshold={threshold}.*\(0, 1\]"):
            find_leaks(["a"], ("train", ["b"]), threshold=threshold)
    with pytest.raises(ValueError, match="val 1, train 0"):
        find_leaks(["a"], ("train", []))
    with pytest.raises(ValueError, match="train 1, train 2"):
        find_leaks(["a"], ("train", ["b"]), ("train", ["b", "c"]))


def test_what_the_card_shows(sample: Path, scenes: list[str]) -> None:
    """Counts of all, twenty examples, no path of this machine."""
    found = find_leaks(scenes[:30], ("train", scenes[10:]), ("photos", scenes[:5]))
    shown = found.as_dict(sample)
    assert json.loads(json.dumps(shown)) == shown
    assert shown["threshold"] == THRESHOLD and "48 × 48" in shown["method"]
    counts = [(one["name"], one["num_images"], one["num_leaked"]) for one in (shown["val"], *shown["pools"])]
    assert counts == [("val", 30, 25), ("train", 50, 20), ("photos", 5, 5)]
    assert len(shown["pairs"]) == 20 and len(found.pairs) == 25
    assert all(str(sample / pair["val"]) in scenes for pair in shown["pairs"])
    scores = [pair["score"] for pair in shown["pairs"]]
    assert scores == sorted(scores, reverse=True) and max(scores) <= 1
    assert shown["sentence"].startswith(
        "25 of 30 validation images have a near duplicate: 20 in train (50 images), 5 in"
    )
