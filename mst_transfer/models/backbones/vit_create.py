"""Builds a timm ViT that takes images of any size, or says why it cannot.

Supported are timm's ``VisionTransformer`` (DINO, iBOT, MAE, MoCo v3, DINOv2, DeiT, …), ``Eva`` (DINOv3, EVA-02,
RoPE-ViT, PE) and ``Beit``, with timm's plain patch embedding of square patches. The last norm stands on the tokens:
where an architecture has it behind the pooling of its classifier (``fc_norm``), it is built in its place before.
"""

import logging
from typing import Any, TypeAlias

import timm
from mmengine.logging import print_log
from timm.layers import PatchEmbed
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from mst_transfer.checkpoint.architecture import architecture_of
from mst_transfer.checkpoint.metadata import check_known

ViT: TypeAlias = Any  # VisionTransformer, Eva or Beit; timm's types are not known to mypy

_DYNAMIC = dict(dynamic_img_size=True, dynamic_img_pad=True)
_OPTIONS: dict[str, dict[str, Any]] = {  # by timm's module
    "timm.models.vision_transformer": dict(_DYNAMIC, fc_norm=False),
    "timm.models.deit": dict(_DYNAMIC, fc_norm=False),
    "timm.models.eva": dict(_DYNAMIC, use_fc_norm=False),
    "timm.models.beit": dict(use_fc_norm=False),
}
_CLASSES = (VisionTransformer, VisionTransformerDistilled, Eva, Beit)
_REFUSED = {
    "patch_drop_rate": "leaves out tokens, so no grid is left for a head to read; leave it at 0, and use "
    "drop_path_rate to regularise",
    "num_classes": "gives the backbone a classifier that no output needs; leave it out",
}


def create_vit(arch: str, **timm_kwargs: Any) -> ViT:
    """A randomly initialised timm ViT without classifier.

    Raises:
        ValueError: if there is no such architecture, it is not supported, or it does not take the overrides.
    """
    check_known(arch)
    module = timm.model_entrypoint(arch.split(".")[0]).__module__
    if module not in _OPTIONS:
        raise ValueError(f"arch={arch!r} of {module} is not supported. {_supported()}")
    for name, reason in _REFUSED.items():
        if timm_kwargs.get(name):
            raise ValueError(f"{name}={timm_kwargs[name]} {reason}")
    timm_kwargs = {name: value for name, value in timm_kwargs.items() if name not in _REFUSED}
    if not timm_kwargs.pop("dynamic_img_size", True) or not timm_kwargs.pop("dynamic_img_pad", True):
        raise ValueError(
            "dynamic_img_size=False would allow images of img_size only, but mmdet and mmseg pad each batch to a size "
            "of its own; leave it out"
        )
    options = dict(num_classes=0) | _OPTIONS[module] | timm_kwargs
    try:
        vit = timm.create_model(arch, pretrained=False, **options)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"arch={arch!r} does not take all of {sorted(options)}: {error}") from error
    _check(vit, arch)
    if isinstance(vit, Beit):  # has no option for it; the adapter resamples the relative positions
        vit.patch_embed.strict_img_size = False
        vit.patch_embed.dynamic_img_pad = True
    return vit


def _supported() -> str:
    return (
        f"TimmViT takes the architectures of {', '.join(_OPTIONS)} with timm's PatchEmbed, e.g. vit_small_patch16_224, "
        "vit_small_patch14_reg4_dinov2, vit_small_patch16_dinov3, eva02_small_patch14_224, beitv2_base_patch16_224; "
        "for Swin use mst_transfer.TimmSwin"
    )


def _check(vit: ViT, arch: str) -> None:
    if type(vit) not in _CLASSES or type(vit.patch_embed) is not PatchEmbed:
        embed = type(getattr(vit, "patch_embed", None)).__name__
        raise ValueError(f"arch={arch!r} is a {type(vit).__name__} with {embed}. {_supported()}")
    height, width = vit.patch_embed.patch_size
    if height != width:
        raise ValueError(f"arch={arch!r} has patches of {height}x{width} pixels; only square ones are supported")


def read_architecture(checkpoint: str | None, role: str | None) -> tuple[str, dict[str, Any]]:
    """timm name and overrides that a checkpoint was made with, as its metadata or its tensors tell; logs them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no checkpoint is given or it does not tell.
    """
    if checkpoint is None:
        raise ValueError("arch=None takes the architecture from a checkpoint, but checkpoint=None: give one of them")
    arch, kwargs = architecture_of(checkpoint, role)
    kwargs = {name: value for name, value in kwargs.items() if name != "drop_path_rate"}  # of pre-training
    written = "".join(f", {name}={value!r}" for name, value in kwargs.items())
    print_log(f"{checkpoint} is of arch={arch!r}{written}", logger="current", level=logging.INFO)
    return arch, kwargs
