"""The multi-crop recipe against torchvision: in distribution, and pixel for pixel on equal draws."""

import math
import random

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter, ImageOps
from scipy import stats
from skimage import data
from torchvision import transforms

from mst_transfer.files.image_crops import draw_box
from pretrain.data.augment import (
    NUM_DRAWS,
    CropPlan,
    MultiCropOptions,
    draw_crops,
    render_crop,
    render_crops,
)

NUM_IMAGES = 2500  # of two global crops each: 5,000 draws
HEIGHT, WIDTH = 375, 500
SAME = 1e-3  # a Kolmogorov-Smirnov p-value below this says that two samples differ


@pytest.fixture(scope="module")
def plans() -> list[list[CropPlan]]:
    options = MultiCropOptions(num_local_crops=2)
    return [draw_crops(options, HEIGHT, WIDTH, seed=7, epoch=1, index=i) for i in range(NUM_IMAGES)]


def torchvision_boxes(scale: tuple[float, float], height: int, width: int, count: int) -> np.ndarray:
    torch.manual_seed(0)
    crop = transforms.RandomResizedCrop(10, scale=scale)
    image = torch.empty(3, height, width)
    boxes = [crop.get_params(image, list(crop.scale), list(crop.ratio)) for _ in range(count)]
    return np.array(boxes, dtype=float)  # [count, 4]: top, left, height, width


def box_figures(boxes: np.ndarray) -> dict[str, np.ndarray]:
    top, left, height, width = boxes.T
    return {"top": top, "left": left, "area": height * width, "aspect": np.log(width / height)}


@pytest.mark.parametrize("shape", [(375, 500), (96, 96), (100, 900)])
@pytest.mark.parametrize("kind", ["global", "local"])
def test_boxes_are_distributed_as_torchvisions(kind: str, shape: tuple[int, int]) -> None:
    options = MultiCropOptions(num_local_crops=2)
    crops = slice(0, 2) if kind == "global" else slice(2, 4)
    samples = [draw_crops(options, *shape, seed=3, epoch=0, index=i)[crops] for i in range(NUM_IMAGES)]
    ours = np.array([plan[:4] for sample in samples for plan in sample], dtype=float)
    scale = options.global_scale if kind == "global" else options.local_scale
    theirs = torchvision_boxes(scale, *shape, count=2 * NUM_IMAGES)
    for name, expected in box_figures(theirs).items():
        assert stats.ks_2samp(box_figures(ours)[name], expected).pvalue > SAME, name
    top, left, height, width = ours.T
    assert (top >= 0).all() and (top + height <= shape[0]).all() and (height >= 1).all()
    assert (left >= 0).all() and (left + width <= shape[1]).all() and (width >= 1).all()


@pytest.mark.parametrize("shape", [(50, 500), (500, 50), (100, 110), (3, 1), (1, 1)])
def test_box_that_never_fits_is_torchvisions_central_one(shape: tuple[int, int]) -> None:
    options = MultiCropOptions(global_scale=(1.0, 1.0), num_local_crops=0, ratio=(1.15, 1.3))
    crop = transforms.RandomResizedCrop(10, scale=(1.0, 1.0), ratio=(1.15, 1.3))
    expected = crop.get_params(torch.empty(3, *shape), list(crop.scale), list(crop.ratio))
    for plan in draw_crops(options, *shape, seed=0, epoch=0, index=0):
        assert plan[:4] == tuple(max(1, v) if k >= 2 else v for k, v in enumerate(expected))


@pytest.mark.parametrize(("draw", "top", "left"), [(0.0, 0, 0), (1 - 2**-53, 25, 45)])
def test_a_box_reaches_every_border(draw: float, top: int, left: int) -> None:
    assert draw_box([draw] * NUM_DRAWS, 40, 60, scale=(0.1, 0.1), ratio=(1.0, 1.0)) == (top, left, 15, 15)


def test_every_order_of_jitter_is_as_frequent(plans: list[list[CropPlan]]) -> None:
    orders: dict[tuple[str, ...], int] = {}
    for plan in (p for sample in plans for p in sample if p.jitter):
        key = tuple(name for name, _ in plan.jitter)
        orders[key] = orders.get(key, 0) + 1
    assert len(orders) == 24
    assert stats.chisquare(list(orders.values())).pvalue > SAME


def test_draws_do_not_hang_together(plans: list[list[CropPlan]]) -> None:
    columns = {
        "flip": [s[0].flip for s in plans],
        "flip of next image": [s[0].flip for s in plans[1:] + plans[:1]],
        "flip of second crop": [s[1].flip for s in plans],
        "grayscale": [s[0].grayscale for s in plans],
        "jitter": [bool(s[0].jitter) for s in plans],
        "sigma": [s[0].blur_sigma for s in plans],
        "area": [s[0].height * s[0].width for s in plans],
        "left": [s[0].left / (WIDTH - s[0].width + 1) for s in plans],
    }
    correlation = np.corrcoef(np.array(list(columns.values()), dtype=float))
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(NUM_IMAGES)


def test_draws_follow_from_seed_epoch_and_index_alone() -> None:
    options = MultiCropOptions()

    def draw(options: MultiCropOptions = options, **key: int) -> list[CropPlan]:
        return draw_crops(options, HEIGHT, WIDTH, **{"seed": 0, "epoch": 0, "index": 0, **key})

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draw()
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert draw() == first
    others = [draw(seed=1), draw(epoch=1), draw(index=1), draw(seed=-1)]
    assert all(a != b for i, a in enumerate([first, *others]) for b in [first, *others][:i])
    assert draw(options=MultiCropOptions(num_local_crops=2)) == first[:4]
    changed = draw(options=MultiCropOptions(flip_prob=0.0, grayscale_prob=1.0, hue=0.0))
    assert [p[:4] for p in changed] == [p[:4] for p in first]
    assert [p.blur_sigma for p in changed] == [p.blur_sigma for p in first]
    assert not any(p.flip for p in changed) and all(p.grayscale for p in changed)
    assert all("hue" not in dict(p.jitter) for p in changed)


def render_with_torchvision(image: Image.Image, plan: CropPlan) -> np.ndarray:
    size = [plan.size, plan.size]
    box = (plan.top, plan.left, plan.height, plan.width)
    view = TF.resized_crop(image, *box, size, TF.InterpolationMode.BICUBIC)
    if plan.flip:
        view = TF.hflip(view)
    for name, factor in plan.jitter:
        view = getattr(TF, f"adjust_{name}")(view, factor)
    if plan.grayscale:
        view = TF.rgb_to_grayscale(view, num_output_channels=3)
    if plan.blur_sigma > 0:
        view = view.filter(ImageFilter.GaussianBlur(plan.blur_sigma))
    if plan.solarize_threshold < 256:
        view = ImageOps.solarize(view, plan.solarize_threshold)
    return np.asarray(view).astype(int)


def test_rendered_crops_are_torchvisions_on_equal_draws() -> None:
    """Differences of the operations add up, and a solarised pixel may fall on the other side of 128."""
    image = data.coffee()
    picture = Image.fromarray(image)
    seen: set[str] = set()
    for index in range(12):
        for plan in draw_crops(MultiCropOptions(), *image.shape[:2], seed=5, epoch=0, index=index):
            ours = render_crops(image, [plan])[0].transpose(1, 2, 0).astype(int)
            error = np.abs(ours - render_with_torchvision(picture, plan))
            is_solarized = plan.solarize_threshold < 256
            assert error.mean() <= (3.0 if is_solarized else 1.5), plan
            assert np.quantile(error, 0.99) <= (100 if is_solarized else 8), plan
            seen |= {n for n in ("flip", "jitter", "grayscale", "blur_sigma") if getattr(plan, n)}
            seen |= {"solarize"} if is_solarized else set()
    assert seen == {"flip", "jitter", "grayscale", "blur_sigma", "solarize"}


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (96, 96), (7, 5)])
def test_any_size_of_image(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    options = MultiCropOptions(global_size=96, local_size=48, num_local_crops=3)
    for index in range(20):
        plans = draw_crops(options, *shape, seed=0, epoch=0, index=index)
        assert render_crops(image, plans[:2]).shape == (2, 3, 96, 96)
        assert render_crops(image, plans[2:]).shape == (3, 3, 48, 48)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("global_size", 0, "global_size=0"),
        ("num_local_crops", -1, "num_local_crops=-1"),
        ("local_scale", (0.4, 0.05), "local_scale"),
        ("global_scale", (0.5, 1.5), "global_scale"),
        ("ratio", (0, 1), "ratio"),
        ("flip_prob", 1.2, "flip_prob=1.2"),
        ("global_blur_probs", (1.0,), "global_blur_probs"),
        ("global_solarize_probs", (0.0, -0.2), "global_solarize_probs"),
        ("brightness", -0.1, "brightness"),
        ("hue", 0.6, "hue=0.6"),
        ("blur_sigma", (2.0, 0.1), "blur_sigma"),
        ("solarize_threshold", 300, "solarize_threshold"),
        ("num_local_crop", 8, "num_local_crops"),
        ("xyz", 8, "known options: global_size"),
    ],
)
def test_wrong_option_is_refused_by_name(option: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiCropOptions.from_kwargs(**{option: value})
