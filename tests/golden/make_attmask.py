"""Writes the masks that AttMask's published code gives, with its random draws replaced by stored ones.

    python tests/golden/make_attmask.py --attmask CHECKOUT

CHECKOUT is a folder with https://github.com/gkakogeorgiou/attmask at commit 9f62061. Of that code ``torch.rand`` (is
an image masked?) and ``torch.multinomial`` (which patches are shown?) are replaced, so that its masks are functions of
numbers that our test can use too.
"""

import importlib
import sys
from unittest import mock

import torch
from golden_files import command_line, write
from torch import Tensor

COMMIT = "9f62061"
IMAGES = 6
GRIDS = (36, 49, 196)
SETTINGS = [  # ratio, probability that an image is masked, share that hints are chosen from
    dict(ratio=0.3, image_prob=1.0, show_max=0.1),
    dict(ratio=0.3, image_prob=0.5, show_max=0.1),
    dict(ratio=0.5, image_prob=0.5, show_max=0.25),
    dict(ratio=0.05, image_prob=1.0, show_max=0.6),  # hints are chosen from more patches than are hidden
]


def smallest_draws(draws: Tensor):
    """A ``torch.multinomial`` without repetition that takes the candidates with the smallest draws."""

    def choose(weights: Tensor, num_samples: int) -> Tensor:
        return draws.masked_fill(weights == 0, 2.0).argsort(dim=1, stable=True)[:, :num_samples]

    return choose


def main() -> None:
    sys.path.insert(0, str(command_line(__doc__, "gkakogeorgiou/attmask").parse_args().attmask))
    attmask = importlib.import_module("attmask")
    generator, tensors = torch.Generator().manual_seed(0), {}
    for num_patches in GRIDS:
        importance, image_draws, draws = (
            torch.rand(IMAGES, width, generator=generator) for width in (num_patches, 1, num_patches)
        )
        tensors |= {f"{num_patches}/importance": importance, f"{num_patches}/draws": draws}
        tensors[f"{num_patches}/image_draws"] = image_draws
        for number, setting in enumerate(SETTINGS):
            for mode in ("high", "hint"):
                with (
                    mock.patch.object(torch, "rand", lambda *_, device, d=image_draws: d.flatten()),
                    mock.patch.object(torch, "multinomial", smallest_draws(draws)),
                ):
                    mask = attmask.AttMask(
                        importance,
                        setting["image_prob"],
                        f"attmask_{mode}",
                        setting["ratio"],
                        setting["show_max"] * setting["ratio"],
                        setting["show_max"],
                    )
                tensors[f"{num_patches}/{number}/{mode}"] = mask
    write("attmask.safetensors", tensors, commit=COMMIT, settings=SETTINGS)


if __name__ == "__main__":
    main()
