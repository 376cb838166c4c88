"""Views of labelled images against torchvision's transforms on PIL images; nested subsets of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from mst_transfer.probes import labelled_images
from mst_transfer.probes.labelled_images import LabelledImages, central_view, label_subset, random_view


@pytest.mark.parametrize(("height", "width"), [(120, 90), (64, 150), (37, 37)])
def test_central_view_is_torchvisions(height: int, width: int):
    rough = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
    size = 56
    reference = transforms.Compose(
        [transforms.Resize(64, interpolation=transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)]
    )
    ours = central_view(np.array(picture), size).astype(int)
    theirs = np.array(reference(picture)).astype(int)
    assert ours.shape == theirs.shape == (size, size, 3)
    assert np.abs(ours - theirs).mean() < 0.5 and np.abs(ours - theirs).max() <= 3


def test_central_view_has_torchvisions_size(monkeypatch: pytest.MonkeyPatch):
    """Also where the proportions, as a float, fall a little short of the next pixel: 33 x 110 to 36 x 120."""
    sizes = []
    resize = labelled_images.resize
    monkeypatch.setattr(labelled_images, "resize", lambda *args: sizes.append(args[1:]) or resize(*args))
    for height, width in ((110, 33), (33, 187), (50, 75)):
        central_view(np.zeros((height, width, 3), dtype=np.uint8), 32)
        theirs = transforms.Resize(36)(Image.new("RGB", (width, height))).size[::-1]
        assert sizes.pop() == theirs


def test_random_view_covers_boxes_and_flips():
    image = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (100, 1, 3))  # value = column
    rng = np.random.default_rng(0)
    shares, flips = [], 0
    for _ in range(300):
        view = random_view(image, 32, rng.random(23).tolist()).astype(int)
        left, right = view[:, 0].mean(), view[:, -1].mean()
        flips += left > right
        shares.append(abs(right - left) / 100)
    assert 110 < flips < 190
    assert min(shares) < 0.35 and max(shares) > 0.9


def make_folder(root: Path) -> Path:
    for name, colour in {"b": 200, "a": 40}.items():
        for index in range(2):
            (root / name / "deep").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 30), (colour, index, 0)).save(root / name / "deep" / f"{index}.png")
    return root


def test_labels_follow_the_sorted_folders(tmp_path: Path):
    images = LabelledImages(make_folder(tmp_path), 16)
    assert images.classes == ["a", "b"] and images.labels == [0, 0, 1, 1]
    view, label, index = images[3]
    assert (label, index, view.shape, view[0, 0, 0].item(), view[1, 0, 0].item()) == (1, 3, (3, 16, 16), 200, 1)
    assert LabelledImages(tmp_path, 16, resize="squash")[0][0].shape == (3, 16, 16)


def test_random_views_follow_seed_epoch_and_index(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(noise).save(tmp_path / "a" / "0.png")
    images = LabelledImages(tmp_path, 16, augment=True, seed=1)
    first = images[0][0]
    assert images[0][0].equal(first)
    images.set_epoch(1)
    assert not images[0][0].equal(first)
    assert not LabelledImages(tmp_path, 16, augment=True, seed=2)[0][0].equal(first)


def test_refusals(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="class folders"):
        LabelledImages(tmp_path / "nowhere", 16)
    with pytest.raises(FileNotFoundError, match="holds no class folder"):
        LabelledImages(tmp_path, 16)
    make_folder(tmp_path)
    with pytest.raises(ValueError, match="resize='stretch'"):
        LabelledImages(tmp_path, 16, resize="stretch")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="No image"):
        LabelledImages(tmp_path, 16)


def test_selected_images_keep_their_labels(tmp_path: Path):
    images = LabelledImages(make_folder(tmp_path), 16)
    chosen = images.select([3, 0, 2])
    assert chosen.labels == [1, 0, 1] and chosen.paths == [images.paths[i] for i in (3, 0, 2)]
    assert chosen[0][0].equal(images[3][0]) and len(images) == 4


@pytest.mark.parametrize(
    ("labels", "number"),
    [(4, 4), ("4", 4), (200, 200), ("100%", 200), ("10%", 20), ("0.1%", 1), ("2.5%", 5), ("1.1%", 3), ("7%", 14)],
)
def test_numbers_and_shares(labels, number):
    subset = label_subset(200, labels, seed=0)
    assert len(subset) == len(set(subset.tolist())) == number and 0 <= subset.min() and subset.max() < 200


@pytest.mark.parametrize("number", [7, 14, 56, 112, 880, 117266])
def test_all_are_all_whatever_their_number(number):
    assert len(label_subset(number, "100%", seed=0)) == number
    assert len(label_subset(number, "0.0000001%", seed=0)) == 1


def test_a_smaller_subset_begins_a_larger_one_and_seeds_differ():
    for seed in (0, 1):
        order = label_subset(50, "100%", seed).tolist()
        assert sorted(order) == list(range(50))
        for labels in (1, 7, "30%"):
            subset = label_subset(50, labels, seed).tolist()
            assert subset == order[: len(subset)]
    assert label_subset(50, 10, 0).tolist() != label_subset(50, 10, 1).tolist()


def test_every_image_is_as_likely():
    """Of 400 seeds each of 20 images is among the first 5 about 100 times."""
    times = [0] * 20
    for seed in range(400):
        for image in label_subset(20, 5, seed):
            times[image] += 1
    assert all(65 < number < 135 for number in times), times


@pytest.mark.parametrize("labels", [0, -1, 11, "11", "0%", "101%", "2.5", "", "ten", "10 images", "١"])
def test_others_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels = .* must be a number of training images in 1 … 10 .*10%"):
        label_subset(10, labels, 0)
