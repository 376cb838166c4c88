"""Adds to timm's ViT and Swin what MST needs of them: masked input and the importance of patches."""

import timm
from timm.models import is_model_in_modules

from pretrain.backbones.masked import MaskedBackbone
from pretrain.backbones.swin import MaskedSwin
from pretrain.backbones.vit import MaskedViT


def build_backbone(arch: str = "vit_small_patch16_224", **options) -> MaskedBackbone:
    """Builds the backbone that timm's class for ``arch``, a name of timm, asks for: ``MaskedViT`` or ``MaskedSwin``.

    Raises:
        ValueError: timm does not know ``arch``, does not take these options for it, or it is neither a ViT with a
            class token nor a Swin Transformer.
    """
    is_swin = timm.is_model(arch) and is_model_in_modules(arch, {"swin_transformer"})
    return (MaskedSwin if is_swin else MaskedViT)(arch, **options)
