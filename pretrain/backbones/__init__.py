"""What MST needs of ViT and Swin beyond timm: masked input and the importance of patches."""

from timm.models import is_model_in_modules

from pretrain.backbones.masked_backbone import check_arch
from pretrain.backbones.swin import MaskedSwin
from pretrain.backbones.vit import MaskedViT

Backbone = MaskedViT | MaskedSwin


def build_backbone(arch: str = "vit_small_patch16_224", **options) -> Backbone:
    """Builds the backbone that timm's class for ``arch`` asks for.

    Args:
        arch: timm architecture name.
        **options: arguments of ``MaskedViT`` or ``MaskedSwin``.

    Raises:
        ValueError: timm does not know ``arch``, does not take these options for it, or it is neither a ViT with a
            class token nor a Swin Transformer.
    """
    check_arch(arch)
    if is_model_in_modules(arch, {"swin_transformer"}):
        return MaskedSwin(arch, **options)
    if not is_model_in_modules(arch, {"vision_transformer", "deit"}):
        raise ValueError(
            f"backbone.arch = {arch!r} can't be pre-trained here: choose a Vision Transformer with a class token, e.g. "
            "vit_small_patch16_224, or a Swin Transformer, e.g. swin_tiny_patch4_window7_224"
        )
    return MaskedViT(arch, **options)
