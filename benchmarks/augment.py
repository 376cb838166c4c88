"""JPEG files to DINO's 2 + 8 crops: our pipeline against torchvision's transforms on PIL images, on one core.

Without a folder the images are photographs that ship with scikit-image, cut to 500x375 and saved as JPEG of
quality 90. Both pipelines decode the same bytes and end with normalised float tensors on one side (as DINO's
does) and with the uint8 batch that our model normalises on the device on the other; ``ours + normalize`` adds
that step on the CPU. Processor time is measured, so that a busy machine does not count.
"""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms

from benchmarks.measure import Row, compare, processor_clock, take_turns
from pretrain.data.dataset import MultiCropDataset

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PilBlur:
    """PIL's Gaussian blur with a random radius, with a probability."""

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() > self.probability:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def torchvision_crops(num_local_crops: int = 8) -> Callable[[Image.Image], list[torch.Tensor]]:
    """The multi-crop transform of the DINO paper, put together from torchvision's transforms."""

    def view(size: int, scale: tuple[float, float], blur: float, solarize: float) -> transforms.Compose:
        jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
        steps = [
            transforms.RandomResizedCrop(size, scale, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            PilBlur(blur),
            transforms.RandomApply([ImageOps.solarize], p=solarize) if solarize else lambda image: image,
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
        return transforms.Compose(steps)

    views = [view(224, (0.4, 1.0), 1.0, 0.0), view(224, (0.4, 1.0), 0.1, 0.2)]
    views += [view(96, (0.05, 0.4), 0.5, 0.0)] * num_local_crops
    return lambda image: [v(image) for v in views]


def make_photographs(folder: Path, num_images: int, height: int = 375, width: int = 500) -> None:
    """Different cuts of scikit-image's photographs as JPEG of quality 90."""
    from skimage import data

    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.cat()]
    rng = np.random.default_rng(0)
    for number in range(num_images):
        photograph = photographs[number % len(photographs)]
        share = rng.uniform(0.6, 1.0)
        rows, columns = (int(n * share) for n in photograph.shape[:2])
        top = rng.integers(0, photograph.shape[0] - rows + 1)
        left = rng.integers(0, photograph.shape[1] - columns + 1)
        picture = Image.fromarray(photograph[top : top + rows, left : left + columns])
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        picture.save(folder / f"{number:04d}.jpg", quality=90)


def run(quick: bool = False, folder: Path | None = None, num_images: int = 60, rounds: int = 7) -> list[Row]:
    """Rows for uint8 crops, for reduced decoding and for normalised crops; of small and of large photographs."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if quick:
        num_images, rounds = 4, 1
    rows = []
    with tempfile.TemporaryDirectory() as made:
        for height, width in ((375, 500), (1500, 2000)):
            if folder is not None and height == 1500:
                continue
            images = folder or Path(made) / str(height)
            count = num_images if height == 375 else max(num_images // 6, 2)
            if folder is None:
                images.mkdir()
                make_photographs(images, count, height, width)
            rows += _compare(images, count, rounds, "own images" if folder else f"JPEG {width}x{height}", quick)
    return rows


def _compare(folder: Path, num_images: int, rounds: int, what: str, quick: bool) -> list[Row]:
    dataset = MultiCropDataset(str(folder), max_images=num_images)
    reduced = MultiCropDataset(str(folder), max_images=num_images, reduced_decoding=True)
    paths, count = dataset.paths, len(dataset)
    peer = torchvision_crops()
    mean = torch.tensor(_MEAN).view(1, 3, 1, 1) * 255
    std = torch.tensor(_STD).view(1, 3, 1, 1) * 255

    def peer_image(path: str) -> list[torch.Tensor]:
        with open(path, "rb") as file:
            return peer(Image.open(file).convert("RGB"))

    def ours_normalized(key: tuple[int, int]) -> list[torch.Tensor]:
        sample = dataset[key]
        return [(sample[name].float() - mean) / std for name in ("global_crops", "local_crops")]

    times = take_turns(
        {
            "torchvision + PIL": lambda: [peer_image(path) for path in paths],
            "ours": lambda: [dataset[(0, index)] for index in range(count)],
            "ours, reduced_decoding": lambda: [reduced[(0, index)] for index in range(count)],
            "ours + normalize": lambda: [ours_normalized((0, index)) for index in range(count)],
        },
        rounds,
        processor_clock,
    )
    title = f"{what} to 2x224 + 8x96, one core"
    theirs = ("torchvision + PIL", times.pop("torchvision + PIL"))
    goals = {} if quick or "2000" in what else {"ours": 7.0}
    return [
        compare(title, theirs, (name, ours), unit="ms/image", scale=1e3 / count, goal=goals.get(name))
        for name, ours in times.items()
    ]
