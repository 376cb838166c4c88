"""With which mean and standard deviation a backbone's images were normalised: known, or assumed and said so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timm.models import get_pretrained_cfg
from torch import nn

from mst_transfer.checkpoint.metadata import BackboneMetadata

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation, RGB on a scale of 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str  # who says so, in words
    known: bool = True  # False if they are assumed

    def line(self) -> str:
        """In words."""
        return f"normalisation: mean {list(self.mean)}, std {list(self.std)} ({self.origin})"


def normalisation_of(
    metadata: BackboneMetadata | None,
    arch: str | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Normalisation:
    """What is given, else what the file's metadata say, else timm's of the weights that are named, else ImageNet's.

    The name of an architecture alone settles nothing: timm's ``vit_small_patch16_224`` has weights of AugReg (0.5) and
    of DINO (ImageNet's).

    Args:
        metadata: of the file; None for a foreign one.
        arch: timm name that the user gives, with the tag of its weights (``vit_small_patch16_224.dino``) or without.
        mean: given by the user, RGB on a scale of 0 to 1.
        std: likewise.

    Raises:
        ValueError: a given number is out of range, or timm has no weights of that tag.
    """
    for name, values, lowest in (("mean", mean, -1.0), ("std", std, 1e-6)):
        if values is not None and not all(lowest <= value <= 1 for value in values):
            raise ValueError(f"{name}={list(values)} must lie between {lowest} and 1: pixels are from 0 to 1 there")
    if metadata is not None:
        found = Normalisation(metadata.mean, metadata.std, "recorded in the file")
    elif arch is not None and "." in arch:
        found = Normalisation(*_of_timm(arch), f"timm's for {arch}")
    else:
        assumed = "ImageNet's, assumed: the file says nothing of its normalisation; `mst convert FILE --to mst "
        assumed += "--mean R G B --std R G B -o NEW` writes it down"
        found = Normalisation(IMAGENET_MEAN, IMAGENET_STD, assumed, known=False)
    if mean is None and std is None:
        return found
    given = "given" if mean is not None and std is not None else f"partly given, else {found.origin}"
    known = found.known or (mean is not None and std is not None)
    return Normalisation(tuple(mean or found.mean), tuple(std or found.std), given, known)


def _of_timm(arch: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        config = get_pretrained_cfg(arch, allow_unregistered=False)
    except RuntimeError as error:
        raise ValueError(f"arch={arch!r}: {error} Names with a tag: timm.list_pretrained()") from error
    assert config is not None
    return tuple(config.mean), tuple(config.std)


def timm_remark(model: nn.Module, metadata: BackboneMetadata | None) -> str:
    """A line on a foreign file if timm's weights of the model's architecture are normalised otherwise than ImageNet's.

    It is empty if the file has metadata, or if ImageNet's are timm's too.
    """
    config: Any = getattr(model, "pretrained_cfg", None)
    if metadata is not None or not isinstance(config, Mapping) or not config.get("mean"):
        return ""
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if (mean, std) == (IMAGENET_MEAN, IMAGENET_STD):
        return ""
    name = ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    return f"not said by the file; timm's {name} has mean {list(mean)}, std {list(std)}, not ImageNet's"
