"""Families of models: what loading compares, resamples and requires differs between them.

The first family that takes a model is its family.
"""

from torch import nn

from mst_transfer.checkpoint.families.swin import SwinFamily
from mst_transfer.checkpoint.families.vit import ViTFamily

Family = SwinFamily | ViTFamily
FAMILIES: tuple[Family, ...] = (SwinFamily(), ViTFamily())

__all__ = ["FAMILIES", "Family", "family_of"]


def family_of(model: nn.Module) -> Family:
    """The family that a model belongs to.

    Raises:
        ValueError: if it belongs to none.
    """
    for family in FAMILIES:
        if family.takes(model):
            return family
    anchors = " or ".join(repr(family.anchor) for family in FAMILIES)
    names = " or ".join(family.name for family in FAMILIES)
    raise ValueError(f"{type(model).__name__} has no {anchors}: give a timm {names}")
