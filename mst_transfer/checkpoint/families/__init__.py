"""Families of models: what loading compares, resamples and requires differs between them."""

from torch import nn

from mst_transfer.checkpoint.families.swin import SwinFamily
from mst_transfer.checkpoint.families.vit import ViTFamily

Family = SwinFamily | ViTFamily
FAMILIES: tuple[Family, ...] = (SwinFamily(), ViTFamily())


def family_of(model: nn.Module) -> Family:
    """The first family whose anchor a model has.

    Raises:
        ValueError: if it has none.
    """
    state = model.state_dict()
    for family in FAMILIES:
        if family.anchor in state:
            return family
    anchors = " or ".join(repr(family.anchor) for family in FAMILIES)
    raise ValueError(f"{type(model).__name__} has no {anchors}: give a timm Swin or ViT")
