"""Pixel operations against torchvision and PIL on photographs."""

import numpy as np
import pytest
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter, ImageOps
from skimage import data

from mst_transfer.files.image_crops import resized_crop
from pretrain.data import image_ops

PHOTOGRAPHS = [data.astronaut(), data.coffee(), data.chelsea()]


def photographs(size: int) -> list[np.ndarray]:
    return [np.array(Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC)) for p in PHOTOGRAPHS]


def difference(ours: np.ndarray, expected: Image.Image) -> np.ndarray:
    return np.abs(ours.astype(int) - np.asarray(expected).astype(int))


@pytest.mark.parametrize("size", [224, 96, 7])
def test_resized_crop_is_pils_bicubic(size: int) -> None:
    rng = np.random.default_rng(0)
    photograph = PHOTOGRAPHS[1]
    boxes = [(0, 0, *photograph.shape[:2]), (3, 5, 1, 1), (10, 0, 2, 300), (0, 0, size, size)]
    for _ in range(20):
        height, width = rng.integers(20, 400), rng.integers(20, 600)
        boxes.append((rng.integers(0, 401 - height), rng.integers(0, 601 - width), height, width))
    for top, left, height, width in boxes:
        ours = resized_crop(photograph, top, left, height, width, size)
        expected = TF.resized_crop(
            Image.fromarray(photograph), top, left, height, width, [size, size], TF.InterpolationMode.BICUBIC
        )
        error = difference(ours, expected)
        # The rare larger differences come from clipping between the two passes, whose order is the library's.
        assert error.mean() <= 0.3 and error.max() <= 16, (top, left, height, width)
        assert np.quantile(error, 0.999) <= 2, (top, left, height, width)
        assert ours.flags.c_contiguous and ours.dtype == np.uint8


# (operation, factors, largest mean difference, largest difference), in grey levels
COLOR_OPS = [
    ("brightness", (0.6, 0.87, 1.0, 1.13, 1.4), 0.1, 1),
    ("contrast", (0.6, 0.87, 1.0, 1.13, 1.4), 0.6, 1),
    ("saturation", (0.8, 0.93, 1.0, 1.07, 1.2), 0.25, 1),
    ("hue", (-0.1, -0.03, 0.0, 0.05, 0.1, 0.5), 0.8, 16),
]


@pytest.mark.parametrize(("name", "factors", "mean", "largest"), COLOR_OPS, ids=[op[0] for op in COLOR_OPS])
def test_color_operation_is_torchvisions(name: str, factors: tuple[float, ...], mean: float, largest: int) -> None:
    for image in photographs(96):
        before = image.copy()
        for factor in factors:
            ours = getattr(image_ops, f"adjust_{name}")(image, factor)
            error = difference(ours, getattr(TF, f"adjust_{name}")(Image.fromarray(image), factor))
            assert error.mean() <= mean and error.max() <= largest, factor
        assert np.array_equal(image, before)


def test_grayscale_is_torchvisions() -> None:
    for image in photographs(96):
        expected = np.asarray(TF.rgb_to_grayscale(Image.fromarray(image), num_output_channels=3))
        assert np.abs(image_ops.to_grayscale(image)[..., None].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("threshold", [0, 100, 128, 256])
def test_solarize_is_pils(threshold: int) -> None:
    for image in photographs(32):
        expected = ImageOps.solarize(Image.fromarray(image), threshold)
        assert difference(image_ops.solarize(image, threshold), expected).max() == 0


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 0.8, 1.0, 1.4, 1.6, 2.0])
@pytest.mark.parametrize("size", [224, 96])
def test_gaussian_blur_is_pils(sigma: float, size: int) -> None:
    for image in photographs(size):
        expected = Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))
        error = difference(image_ops.gaussian_blur(image, sigma), expected)
        assert error.mean() <= 0.7
        assert error[6:-6, 6:-6].max() <= 3
        assert error.max() <= 20


@pytest.mark.parametrize("shape", [(5, 5, 3), (1, 1, 3), (3, 200, 3), (64, 64)])
def test_gaussian_blur_of_small_and_gray_images(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert image_ops.gaussian_blur(image, 2.0).shape == shape
    flat = np.full(shape, 77, dtype=np.uint8)
    assert np.array_equal(image_ops.gaussian_blur(flat, 1.3), flat)
