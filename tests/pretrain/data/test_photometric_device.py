"""Photometry of whole batches against the same operations of the loader, one image at a time.

Both round to whole grey levels after each operation. Where the exact value lies within float32's error of the border
between two levels they may choose different ones: few pixels may differ, and by one level after one operation. In a
chain such a level can grow, in the steps of 8-bit HSV (one level of a dull colour turns its hue far) and by contrast.
"""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.data import image_ops
from pretrain.data import photometric_device
from pretrain.data.augment import CropPlan, MultiCropOptions, draw_crops, render_crops
from pretrain.data.photometric_device import apply_photometry
from pretrain.data.photometric_plan import as_rows, blur_radius, without_photometry

PHOTOGRAPHS = [data.astronaut(), data.coffee(), data.chelsea()]
OPTIONS = MultiCropOptions(global_solarize_probs=(0.3, 0.3), local_solarize_prob=0.3)
RADIUS = blur_radius(OPTIONS)
IN_A_CHAIN = 4  # grey levels


def images(size: int) -> list[np.ndarray]:
    """Photographs, noise, and every grey level, uint8 [size, size, 3] each."""
    found = [np.array(Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC)) for p in PHOTOGRAPHS]
    found.append(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))
    found.append(np.arange(size * size * 3).astype(np.uint8).reshape(size, size, 3) // 3 * 3)
    return found


def planes(pictures: list[np.ndarray]) -> Tensor:
    return torch.stack([torch.from_numpy(picture).permute(2, 0, 1).float() for picture in pictures])


def check(ours: Tensor | np.ndarray, expected: np.ndarray, largest: int = 1, share: float = 1e-3) -> None:
    error = np.abs(np.asarray(ours).astype(int) - expected.astype(int))
    assert error.max() <= largest and (error > 0).mean() <= share, (error.max(), (error > 0).mean())


def each_alone(operation: Callable[..., np.ndarray], pictures: list[np.ndarray], values: list[Any]) -> np.ndarray:
    """[n, 3, S, S], every picture with its own value."""
    done = [operation(picture, value) for picture, value in zip(pictures, values, strict=True)]
    return np.stack([np.stack([d] * 3) if d.ndim == 2 else d.transpose(2, 0, 1) for d in done])


@pytest.mark.parametrize("size", [224, 96, 5])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_blend_is_the_loaders(name: str, size: int) -> None:
    pictures = images(size)
    for factors in ([0.6, 0.87, 1.0, 1.13, 1.4], [1.4, 0.6, 0.8, 1.0, 0.93], [0.0, 2.0, 0.31, 1.2, 1.7]):
        rest = [1 - factor for factor in factors]
        zero = [0.0] * 5
        shares = {"brightness": (zero, zero), "saturation": (rest, zero), "contrast": (zero, rest)}[name]
        ours = photometric_device.blend(planes(pictures), torch.tensor([factors, *shares]).T)
        expected = each_alone(getattr(image_ops, f"adjust_{name}"), pictures, factors)
        check(ours, expected)


@pytest.mark.parametrize("size", [224, 96])
def test_hue_is_the_loaders(size: int) -> None:
    pictures = images(size)
    for shifts in ([-0.1, -0.03, 0.0, 0.05, 0.1], [0.5, -0.5, 0.001, -0.001, 0.3]):
        numbers = torch.tensor([int(shift * 255) % 256 for shift in shifts])
        check(
            photometric_device.turn_hue(planes(pictures), numbers), each_alone(image_ops.adjust_hue, pictures, shifts)
        )


def test_gray_is_the_loaders() -> None:
    pictures = images(96)
    ours = photometric_device.to_grayscale(planes(pictures), torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]))
    gray = each_alone(lambda picture, _: image_ops.to_grayscale(picture), pictures, [None] * 5)
    expected = np.where(np.array([1, 0, 1, 1, 0]).reshape(-1, 1, 1, 1), gray, planes(pictures))
    assert np.array_equal(ours, expected)


@pytest.mark.parametrize("size", [224, 96, 4])  # the last is smaller than the kernels
def test_blur_is_the_loaders(size: int) -> None:
    pictures = images(size)
    for sigmas in ([0.1, 0.5, 1.1, 1.37, 2.0], [2.0, 1.9, 0.004, 0.77, 0.3]):
        plans = [CropPlan(0, 0, 1, 1, size, False, (), False, sigma, 256) for sigma in sigmas]
        taps = torch.from_numpy(as_rows(plans, RADIUS))[:, -RADIUS - 1 :]
        ours = photometric_device.gaussian_blur(planes(pictures), taps)
        check(ours, each_alone(image_ops.gaussian_blur, pictures, sigmas))


def test_solarisation_is_the_loaders() -> None:
    pictures, thresholds = images(96), [0, 1, 128, 200, 256]
    ours = photometric_device.solarize(planes(pictures), torch.tensor(thresholds))
    assert np.array_equal(ours, each_alone(image_ops.solarize, pictures, thresholds))


def drawn(index: int, crops: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops as the loader finishes them, crops without photometry, and their rows."""
    picture = PHOTOGRAPHS[index % 3]
    plans = draw_crops(OPTIONS, *picture.shape[:2], seed=1, epoch=0, index=index)[crops]
    bare = render_crops(picture, [without_photometry(plan) for plan in plans])
    return render_crops(picture, plans), bare, as_rows(plans, RADIUS)


def batch(crops: slice, size: int = 12) -> tuple[np.ndarray, Tensor, Tensor]:
    expected, bare, rows = map(np.stack, zip(*(drawn(index, crops) for index in range(size)), strict=True))
    return expected, torch.from_numpy(bare), torch.from_numpy(rows)


@pytest.mark.parametrize("crops", [slice(0, 2), slice(2, 10)], ids=["global", "local"])
def test_drawn_chain_is_the_loaders(crops: slice) -> None:
    expected, bare, rows = batch(crops)
    before = bare.clone()
    ours = apply_photometry(bare, rows)
    assert ours.dtype == torch.uint8 and ours.shape == bare.shape and torch.equal(bare, before)
    check(ours, expected, largest=IN_A_CHAIN)
    assert (np.abs(bare.numpy().astype(int) - expected) > 2).mean() > 0.5  # there was something to do


def test_every_order_of_the_jitter_is_the_loaders() -> None:
    factors = dict(brightness=1.3, contrast=0.7, saturation=1.2, hue=-0.08)
    picture = PHOTOGRAPHS[1]
    plans = [
        CropPlan(10, 10, 300, 300, 64, False, tuple((name, factors[name]) for name in order), False, 0.0, 256)
        for count in range(5)
        for order in permutations(factors, count)
    ]
    bare = render_crops(picture, [without_photometry(plan) for plan in plans])
    ours = apply_photometry(torch.from_numpy(bare), torch.from_numpy(as_rows(plans, 0)))
    check(ours, render_crops(picture, plans), largest=IN_A_CHAIN)
    assert np.array_equal(ours[0], bare[0])  # nothing drawn, nothing done


def test_views_do_not_mix() -> None:
    _, bare, rows = batch(slice(2, 10), size=3)
    views = zip(bare.flatten(0, 1), rows.flatten(0, 1), strict=True)
    alone = torch.stack([apply_photometry(view[None], row[None]) for view, row in views])
    assert torch.equal(alone.view_as(bare), apply_photometry(bare, rows))


def test_no_view_is_no_work() -> None:
    empty = torch.empty((4, 0, 3, 96, 96), dtype=torch.uint8)
    assert apply_photometry(empty, torch.empty(4, 0, 28)).shape == empty.shape


class NoWaiting(TorchDispatchMode):
    """Refuses operations that need a value on the host, or bring one from it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        forbidden = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "is_nonzero", "equal.default")
        assert not any(word in name for word in forbidden), name
        return func(*args, **(kwargs or {}))


def test_host_and_device_do_not_wait_for_each_other() -> None:
    _, bare, rows = batch(slice(2, 10), size=2)
    with NoWaiting():
        apply_photometry(bare, rows)
    with FakeTensorMode() as fake:  # tensors without values
        ours = apply_photometry(fake.from_tensor(bare), fake.from_tensor(rows))
    assert ours.shape == bare.shape


def test_autocast_changes_nothing() -> None:
    _, bare, rows = batch(slice(2, 10), size=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = apply_photometry(bare, rows)
    assert torch.equal(ours, apply_photometry(bare, rows))


def test_compiles_once_for_each_size() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")  # without code generation, which needs a C++ compiler
    compiled = torch.compile(apply_photometry, backend=counter, fullgraph=True, dynamic=False)
    for index, crops in enumerate([slice(0, 2), slice(2, 10), slice(0, 2), slice(2, 10)]):
        expected, bare, rows = map(np.stack, zip(drawn(index, crops), drawn(index + 9, crops), strict=True))
        check(compiled(torch.from_numpy(bare), torch.from_numpy(rows)), expected, largest=IN_A_CHAIN)
    assert counter.frame_count == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: there is none here")
@pytest.mark.parametrize("crops", [slice(0, 2), slice(2, 10)], ids=["global", "local"])
def test_on_cuda_the_same_without_waiting(crops: slice) -> None:
    expected, bare, rows = batch(crops)
    bare, rows = bare.cuda(), rows.cuda()
    apply_photometry(bare, rows)  # libraries are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours = apply_photometry(bare, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    check(ours.cpu(), expected, largest=IN_A_CHAIN)
