"""What DINO's ``DataAugmentationDINO`` draws: its random pieces are recorded, its pixels are not computed."""

import random
from contextlib import ExitStack
from types import SimpleNamespace
from unittest import mock

import dino_inputs as inputs
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import functional as TF

OPERATIONS = ("flip", "jitter", "grayscale", "blur", "solarize")
FACTORS = ("brightness", "contrast", "saturation", "hue")
STRENGTHS = ("area", "aspect", "top", "left", *FACTORS, "sigma")


def place(top: int, left: int, height: int, width: int) -> dict[str, float]:
    """Figures of a crop's box: share of the area, log of width / height, place among those possible in [0, 1]."""
    rows, columns = inputs.IMAGE_SIZE
    return {
        "area": height * width / (rows * columns),
        "aspect": float(np.log(width / height)),
        "top": (top + 0.5) / (rows - height + 1),
        "left": (left + 0.5) / (columns - width + 1),
    }


def summary(crops: dict[str, list[dict[str, float]]]) -> dict[str, Tensor]:
    """Rate of each operation and quantiles of each strength, by kind of crop, and the order of the jitter.

    Args:
        crops: of each kind, what was done to each crop: operations (the size for ``size``) and strengths.
    """
    golden = {}
    for kind, drawn in crops.items():
        golden[f"rates/{kind}"] = torch.tensor([np.mean([name in d for d in drawn]) for name in OPERATIONS])
        golden[f"sizes/{kind}"] = torch.tensor(sorted({d["size"] for d in drawn}))
        for name in STRENGTHS:
            values = [d[name] for d in drawn if name in d]
            golden[f"quantiles/{kind}/{name}"] = torch.from_numpy(np.quantile(values, inputs.QUANTILES))
            golden[f"counts/{kind}/{name}"] = torch.tensor(len(values))
    return golden


def augmentation(dino: SimpleNamespace) -> dict[str, Tensor]:
    """Draws of its transforms at the defaults of its command line, with one local crop, for NUM_DRAWS images."""
    options = dino.main_dino.get_args_parser().parse_args([])
    torch.manual_seed(0), random.seed(0)
    events: list[dict[str, float]] = []
    little = Image.new("RGB", (8, 8))

    def resized_crop(image, top, left, height, width, size, interpolation, *args, **kwargs):
        assert image.size == inputs.IMAGE_SIZE[::-1] and interpolation == TF.InterpolationMode.BICUBIC
        events.append({"size": size[0], **place(top, left, height, width)})
        return little

    def noting(name, function):
        def note(image, *args, **kwargs):
            events[-1][name] = 1.0
            return function(image, *args, **kwargs)

        return note

    def adjusting(name):
        def adjust(image, factor):
            events[-1].update({"jitter": 1.0, name: factor})
            return image

        return adjust

    def blur(image, kernel):
        events[-1].update({"blur": 1.0, "sigma": kernel.radius})
        return image

    def solarize(image, threshold=128):
        assert threshold == 128
        events[-1]["solarize"] = 1.0
        return image

    with ExitStack() as stack:

        def patch(owner: object, name: str, new: object) -> None:
            stack.enter_context(mock.patch.object(owner, name, new))

        patch(TF, "resized_crop", resized_crop)
        patch(TF, "hflip", noting("flip", TF.hflip))
        patch(TF, "rgb_to_grayscale", noting("grayscale", TF.rgb_to_grayscale))
        for name in FACTORS:
            patch(TF, f"adjust_{name}", adjusting(name))
        patch(Image.Image, "filter", blur)
        patch(ImageOps, "solarize", solarize)
        transform = dino.main_dino.DataAugmentationDINO(options.global_crops_scale, options.local_crops_scale, 1)
        image = Image.new("RGB", inputs.IMAGE_SIZE[::-1])
        for _ in range(inputs.NUM_DRAWS):
            transform(image)
    return summary({kind: events[i :: len(inputs.CROP_KINDS)] for i, kind in enumerate(inputs.CROP_KINDS)})
