"""Writes the masks that AttMask's published code gives, with its random draws replaced by stored ones.

    python tests/golden/make_attmask.py --attmask CHECKOUT

CHECKOUT is a folder with https://github.com/gkakogeorgiou/attmask at commit 9f62061. Of that code ``torch.rand`` (is
an image masked?) and ``torch.multinomial`` (which patches are shown?) are replaced, so that its masks are functions of
numbers that our test can use too.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

COMMIT = "9f62061"
TARGET = Path(__file__).parent / "attmask.safetensors"
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


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attmask", type=Path, required=True, help="checkout of gkakogeorgiou/attmask")
    checkout = parser.parse_args(argv).attmask
    if not (checkout / "attmask.py").is_file():
        raise FileNotFoundError(f"{checkout} holds no attmask.py: give a checkout of gkakogeorgiou/attmask")
    sys.path.insert(0, str(checkout))
    attmask = importlib.import_module("attmask")
    generator, tensors = torch.Generator().manual_seed(0), {}
    for num_patches in GRIDS:
        importance = torch.rand(IMAGES, num_patches, generator=generator)
        image_draws = torch.rand(IMAGES, 1, generator=generator)
        draws = torch.rand(IMAGES, num_patches, generator=generator)
        tensors |= {
            f"{num_patches}/importance": importance,
            f"{num_patches}/image_draws": image_draws,
            f"{num_patches}/draws": draws,
        }
        for number, setting in enumerate(SETTINGS):
            for mode in ("high", "hint"):
                with (
                    mock.patch.object(torch, "rand", lambda *_, device, d=image_draws: d.flatten()),
                    mock.patch.object(torch, "multinomial", smallest_draws(draws)),
                ):
                    tensors[f"{num_patches}/{number}/{mode}"] = attmask.AttMask(
                        importance,
                        setting["image_prob"],
                        f"attmask_{mode}",
                        setting["ratio"],
                        setting["show_max"] * setting["ratio"],
                        setting["show_max"],
                    )
    save_file(tensors, TARGET, metadata={"commit": COMMIT, "settings": json.dumps(SETTINGS)})
    print(f"{TARGET}: {len(tensors)} tensors, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
