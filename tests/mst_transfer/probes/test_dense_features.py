"""Views, soft labels, tokens and counts, against plain loops and timm."""

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from planted_scenes import write_images

from mst_transfer.checkpoint.normalisation import normalisation_of
from mst_transfer.files.image_files import UnreadableImageError
from mst_transfer.probes.backbones import FrozenBackbone, create_backbone
from mst_transfer.probes.dense_features import extract_tokens
from mst_transfer.probes.dense_images import DenseImages, mean_iou
from mst_transfer.probes.features import patch_tokens

VIT = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3)
REGISTERS = dict(img_size=28, patch_size=14, embed_dim=24, depth=2, num_heads=3, reg_tokens=4)
SWIN = dict(img_size=32, patch_size=2, window_size=4, embed_dim=8, depths=(1, 1, 1), num_heads=(1, 1, 2))


def make_frozen(arch="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    model = create_backbone(arch, **(options or VIT))
    return FrozenBackbone(model, normalisation_of(None, arch), 32)


def label_maps(*sizes, num_classes=4, seed=0):
    random = np.random.default_rng(seed)
    return [random.choice([*range(num_classes), 255], size).astype(np.uint8) for size in sizes]


def test_patch_tokens_are_timms():
    for arch, options, size in (
        ("vit_tiny_patch16_224", VIT, (24, 40)),
        ("vit_small_patch14_reg4_dinov2", REGISTERS, (28, 42)),
        ("swin_tiny_patch4_window7_224", SWIN, (32, 48)),
    ):
        frozen = make_frozen(arch, **options)
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours, theirs = patch_tokens(frozen.model, images), frozen.model.forward_features(images)
        if "swin" not in arch:
            theirs = theirs[:, frozen.model.num_prefix_tokens :].unflatten(1, ours.shape[1:3])
        assert ours.shape[1:3] == (
            size[0] // frozen.model.patch_embed.patch_size[0] // (4 if "swin" in arch else 1),
            3 if "reg4" in arch else ours.shape[2],
        )
        torch.testing.assert_close(ours, theirs)


def test_several_blocks_each_after_the_norm():
    frozen, images = make_frozen(), torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = patch_tokens(frozen.model, images, 3)
        theirs = frozen.model.get_intermediate_layers(images, 3, norm=True, reshape=True)
    torch.testing.assert_close(ours, torch.cat(theirs, dim=1).permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match="must lie in 1 … 3"):
        patch_tokens(frozen.model, images, 4)
    with pytest.raises(ValueError, match="not a multiple of the patch size 8"):
        patch_tokens(frozen.model, images[..., :-1])
    with pytest.raises(ValueError, match="must lie in 1 … 1"):
        patch_tokens(make_frozen("swin_tiny_patch4_window7_224", **SWIN).model, images, 2)


@pytest.mark.parametrize(
    ("size", "multiple", "max_side", "view"),
    [
        ((360, 480), 16, None, (352, 480)),  # 360 is as near to 352 as to 368
        ((361, 479), 16, None, (368, 480)),
        ((360, 480), 14, None, (364, 476)),
        ((3, 100), 16, None, (16, 96)),
        ((300, 600), 16, 200, (96, 192)),
        ((510, 20), 16, 511, (496, 16)),  # 512 would be nearer, and too large
        ((90, 120), 16, 200, (96, 112)),
    ],
)
def test_views_are_the_nearest_multiples(tmp_path, size, multiple, max_side, view):
    pairs = write_images(tmp_path, [np.zeros(size, np.uint8)])
    images = DenseImages(pairs, 1, multiple=multiple, max_side=max_side)
    assert images.view_size(0) == view
    assert images[0, 0, (1, 1)][1].shape == (3, *view)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_photo_is_turned_as_its_labels_are(tmp_path, orientation):
    path, labels = tmp_path / "0.jpg", np.zeros((32, 16) if orientation == 6 else (16, 32), np.uint8)
    upright = Image.fromarray(labels).convert("RGB")
    upright.paste((255, 255, 255), (0, 0, 16, 8))  # above, or above on the left
    turn = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (upright.transpose(turn) if turn is not None else upright).save(path, exif=exif, quality=100)
    images = DenseImages([(path, lambda index: labels)], 1, multiple=8)
    _, view, shares = images[0, 0, (1, 1)]
    assert images.view_size(0) == labels.shape and len(shares) == 1
    assert np.abs(view.permute(1, 2, 0).numpy().astype(int) - np.asarray(upright)).max() < 40


@pytest.mark.parametrize(
    ("size", "grid"), [((12, 16), (3, 4)), ((13, 11), (3, 4)), ((40, 7), (3, 2)), ((5, 5), (1, 1))]
)
def test_soft_labels_equal_a_plain_loop(tmp_path, size, grid):
    (labels,) = label_maps(size)
    labels[: -(-size[0] // grid[0]), : -(-size[1] // grid[1])] = 255  # the first token has no class
    shares = DenseImages(write_images(tmp_path, [labels]), 4, multiple=1).soft_labels(0, grid)
    for token, share in enumerate(shares):
        row, column = divmod(token, grid[1])
        areas = [0.0] * 4
        for y in range(size[0]):
            for x in range(size[1]):
                sides = [
                    min(pixel + 1, (cell + 1) * pixels / cells) - max(pixel, cell * pixels / cells)
                    for pixel, pixels, cell, cells in ((y, size[0], row, grid[0]), (x, size[1], column, grid[1]))
                ]
                if min(sides) > 0 and labels[y, x] != 255:
                    areas[labels[y, x]] += math.prod(sides)
        expected = [area / (sum(areas) or 1) for area in areas]
        assert share.tolist() == pytest.approx(expected, abs=1e-5)
    assert not shares[0].any()


@pytest.mark.parametrize("ignored", [255, 3])
def test_counts_equal_a_plain_loop(tmp_path, ignored):
    maps = label_maps((6, 9), (5, 4))
    maps = [np.where(labels == 255, ignored, labels).astype(np.uint8) for labels in maps]
    images = DenseImages(write_images(tmp_path, maps), 4, multiple=1, ignore_index=ignored)
    scores = [torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(index)) for index in range(2)]
    classes = np.array([0, 2, 3])
    counts, kept = images.compare(enumerate(scores), classes, keep_maps=[1])
    assert counts.shape == (2, 4, 3) and list(kept) == [1]
    for index, labels in enumerate(maps):
        expected = np.zeros((4, 3), int)
        for y in range(labels.shape[0]):
            for x in range(labels.shape[1]):
                at = [(p + 0.5) * n / size - 0.5 for p, n, size in ((y, 2, labels.shape[0]), (x, 3, labels.shape[1]))]
                low = [max(0, math.floor(place)) for place in at]
                high = [min(math.floor(place) + 1, n - 1) for place, n in zip(at, (2, 3), strict=True)]
                share = [max(place, 0) - lower for place, lower in zip(at, low, strict=True)]
                pixel = sum(
                    (share[0] if i else 1 - share[0])
                    * (share[1] if j else 1 - share[1])
                    * scores[index][(low[0], high[0])[i], (low[1], high[1])[j]]
                    for i in (0, 1)
                    for j in (0, 1)
                )
                predicted, true = int(classes[int(pixel.argmax())]), int(labels[y, x])
                if index == 1:
                    assert kept[1][y, x] == predicted
                if true != ignored:
                    expected[predicted, 1] += 1
                    expected[true, 2] += 1
                    expected[true, 0] += predicted == true
        assert np.array_equal(counts[index], expected)


def test_mean_iou_leaves_out_classes_without_truth():
    counts = np.array([[[3, 5, 4], [0, 2, 0], [0, 1, 2]], [[1, 1, 1], [0, 0, 0], [0, 0, 1]]])
    assert mean_iou(counts) == pytest.approx(100 * (4 / (6 + 5 - 4) + 0 / (1 + 3)) / 2)
    assert math.isnan(mean_iou(counts[:, 1:2]))


def test_every_image_has_its_own_tokens(tmp_path):
    """Of several sizes, in any order, in memory or on disk, by processes or without."""
    maps = label_maps((16, 24), (30, 17), (16, 24), (9, 50), (17, 23))
    looks = np.random.default_rng(0)
    pairs = write_images(tmp_path, maps, lambda labels: looks.integers(0, 256, (*labels.shape, 3), np.uint8))
    images, frozen = DenseImages(pairs, 4, multiple=8), make_frozen()
    (tmp_path / "store").mkdir()
    everything = extract_tokens(frozen, images, range(5))
    others = [
        extract_tokens(frozen, images, [4, 1, 2], batch_size=1, num_workers=1),
        extract_tokens(frozen, images, [2, 3], store_path=tmp_path / "store", dtype="f2"),
    ]
    assert isinstance(others[1].tokens, np.memmap) and others[1].tokens.dtype == np.float16
    assert not list((tmp_path / "store").iterdir())
    for store in (everything, *others):
        for place, index in enumerate(store.indices):
            view = torch.from_numpy(cv2.cvtColor(cv2.imread(pairs[index][0]), cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
            view = images[0, int(index), (1, 1)][1][None] if view.shape[1] % 8 or view.shape[2] % 8 else view[None]
            with torch.no_grad():
                expected = patch_tokens(frozen.model, frozen.normalise(view))[0]
            tolerance = 1e-5 if store.tokens.dtype == np.float32 else 4e-3
            np.testing.assert_allclose(store.image(place), expected.numpy(), atol=tolerance)
            labels = images.soft_labels(int(index), tuple(store.grids[place]))
            assert np.array_equal(store.soft_labels[slice(*store.offsets[place : place + 2])], labels)
    rows = everything.select([3, 1])
    assert np.array_equal(rows, [*range(*everything.offsets[3:5]), *range(*everything.offsets[1:3])])
    everything.soft_labels[rows[:2]] = 0
    assert np.array_equal(everything.select([3, 1]), rows[2:])


def test_half_precision(tmp_path):
    images = DenseImages(write_images(tmp_path, label_maps((16, 16))), 4, multiple=8)
    frozen = make_frozen()
    exact = extract_tokens(frozen, images, [0]).tokens
    frozen.dtype = torch.bfloat16
    rounded = extract_tokens(frozen, images, [0]).tokens
    assert rounded.dtype == np.float32 and 0 < abs(rounded - exact).max() < 0.2


def test_tokens_that_are_not_finite_are_refused(tmp_path):
    images, frozen = DenseImages(write_images(tmp_path, label_maps((16, 16))), 4, multiple=8), make_frozen()
    frozen.model.blocks[0].mlp.fc1.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="0.png are not finite in float32"):
        extract_tokens(frozen, images, [0])


def test_label_maps_may_be_drawn(tmp_path):
    maps = label_maps((8, 8), (8, 16))
    pairs = [(path, maps.__getitem__) for path, _ in write_images(tmp_path, maps)]
    images = DenseImages(pairs, 4, multiple=8)
    assert all(images.label_map(index) is labels for index, labels in enumerate(maps))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "size",
            r"mask .*0_labels.png of shape \[3, 4\] holds classes: allowed .*image, \[8, 8\], classes 0 … 3, and 255",
        ),
        ("values", r"mask .*0_labels.png of shape \[8, 8\] holds \[4, 200\]: allowed"),
        ("no mask", "mask .*0_labels.png cannot be read"),
        ("no image", r"image .*0.png cannot be read \(No such file.*A score must be of all images"),
        ("truncated", r"image .*0.png cannot be read \(.*truncated.*A score must be of all images"),
    ],
)
def test_unreadable_files_are_errors(tmp_path, change, message):
    pairs = write_images(
        tmp_path,
        label_maps((8, 8)),
        lambda labels: np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), np.uint8),
    )
    if change == "size":
        cv2.imwrite(pairs[0][1], np.zeros((3, 4), np.uint8))
    elif change == "values":
        cv2.imwrite(pairs[0][1], np.array([[4, 200, 255, 0] * 2] * 8, np.uint8))
    elif change == "truncated":
        content = (tmp_path / "0.png").read_bytes()
        (tmp_path / "0.png").write_bytes(content[: len(content) // 2])
    else:
        (tmp_path / ("0.png" if change == "no image" else "0_labels.png")).unlink()
    with pytest.raises(UnreadableImageError, match=message):
        extract_tokens(make_frozen(), DenseImages(pairs, 4, multiple=8), [0])


@pytest.mark.parametrize(
    ("count", "options"),
    [(0, {}), (1, dict(num_classes=0)), (1, dict(multiple=0)), (1, dict(max_side=4)), (1, dict(num_classes=256))],
)
def test_options_out_of_range_are_named(count, options):
    with pytest.raises(ValueError, match="at least one image, 1 … 255 classes and 1 <= multiple <= max_side"):
        DenseImages([("a", "b")] * count, **dict(num_classes=3, multiple=8) | options)
