"""JPEG files to DINO's 2 + 8 crops: our pipeline against torchvision's transforms on PIL images, on one core.

    python -m benchmarks.augment [FOLDER] [--num-images 100] [--repeats 5] [--json OUT]

Without a folder the images are photographs that ship with scikit-image, cut to 500x375 and saved as JPEG of
quality 90. Both pipelines decode the same bytes and end with normalised float tensors on one side (as DINO's
does) and with the uint8 batch that our model normalises on the device on the other; ``ours + normalize`` adds
that step on the CPU. Processor time is measured, so that a busy machine does not count.
"""

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms

from pretrain.dataset import MultiCropDataset

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


def milliseconds(work: Callable[[], object], num_images: int) -> float:
    """Processor time per image."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / num_images * 1e3


def run(folder: Path, num_images: int, repeats: int) -> dict[str, list[float]]:
    """Times of every pipeline on the same images in milliseconds per image, a row of rounds for each.

    The pipelines take turns within a round, so that what slows the machine down slows all of them.
    """
    dataset = MultiCropDataset(str(folder), max_images=num_images)
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

    pipelines: dict[str, Callable[[], object]] = {
        "torchvision + PIL": lambda: [peer_image(path) for path in paths],
        "ours": lambda: [dataset[(0, index)] for index in range(count)],
        "ours + normalize": lambda: [ours_normalized((0, index)) for index in range(count)],
    }
    times: dict[str, list[float]] = {name: [] for name in pipelines}
    for repeat in range(repeats + 1):
        for name, work in pipelines.items():
            spent = milliseconds(work, count)
            if repeat:  # the first round warms up
                times[name].append(spent)
    return times


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Multi-crop augmentation against torchvision and PIL.")
    parser.add_argument("folder", nargs="?", type=Path, help="images to use instead of generated ones")
    parser.add_argument("--num-images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the table here too")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = args.folder or Path(made)
        if args.folder is None:
            make_photographs(folder, args.num_images)
        times = run(folder, args.num_images, args.repeats)
    rows = []
    print(f"{'pipeline':20} {'ms/image':>9} {'spread':>15} {'images/s':>9} {'ratio':>6}")
    for name, values in times.items():
        median = statistics.median(values)
        ratio = statistics.median(p / v for p, v in zip(times["torchvision + PIL"], values, strict=True))
        rows.append({"pipeline": name, "ms": median, "min": min(values), "max": max(values), "ratio": ratio})
        spread = f"{min(values):.2f}..{max(values):.2f}"
        print(f"{name:20} {median:9.2f} {spread:>15} {1e3 / median:9.0f} {ratio:6.2f}")
    versions = {"python": platform.python_version(), "torch": torch.__version__, "opencv": cv2.__version__}
    if args.json:
        table = {"work": "JPEG to 2x224 + 8x96 crops, one core", "rows": rows, "versions": versions}
        args.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
