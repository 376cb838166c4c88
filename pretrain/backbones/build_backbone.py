"""The backbone of an architecture name: a ViT or a Swin Transformer."""

import difflib

import timm
from timm.models import get_pretrained_cfg, is_model_in_modules

from pretrain.backbones.swin import MaskedSwin
from pretrain.backbones.vit import MaskedViT

Backbone = MaskedViT | MaskedSwin


def build_backbone(arch: str = "vit_small_patch16_224", **options) -> Backbone:
    """The backbone that timm's class for ``arch`` asks for.

    Args:
        arch: timm architecture name.
        **options: arguments of ``MaskedViT`` or ``MaskedSwin``.

    Raises:
        ValueError: timm does not know ``arch``, does not take these options for it, or it is neither a ViT with a
            class token nor a Swin Transformer.
    """
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(["vit*", "deit*", "swin_*"]), n=3)
        hint = f"nearest: {', '.join(near)}" if near else "list them with timm.list_models(['vit*', 'swin_*'])"
        raise ValueError(f"backbone.arch = {arch!r} is not an architecture of timm {timm.__version__}; {hint}")
    try:
        get_pretrained_cfg(arch)
    except RuntimeError as error:
        raise ValueError(f"backbone.arch = {arch!r}: {error} Names with a tag: timm.list_pretrained()") from error
    if is_model_in_modules(arch, {"swin_transformer"}):
        return MaskedSwin(arch, **options)
    if not is_model_in_modules(arch, {"vision_transformer", "deit"}):
        raise ValueError(
            f"backbone.arch = {arch!r} can't be pre-trained here: choose a Vision Transformer with a class token, e.g. "
            "vit_small_patch16_224, or a Swin Transformer, e.g. swin_tiny_patch4_window7_224"
        )
    return MaskedViT(arch, **options)
