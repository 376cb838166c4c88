"""mmpretrain: the names of its ``VisionTransformer``; for a Swin see :mod:`mst_transfer.export.mmdet_swin`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mst_transfer.export import mmdet_swin
from mst_transfer.export.errors import ConversionError
from mst_transfer.export.names import Table, rename, require_plain_mlp
from mst_transfer.export.original import Original
from mst_transfer.export.resampling import plain_bicubic, resampling_remark
from mst_transfer.export.target import Options, Target
from mst_transfer.export.verify import Agreement, compare_at, features, read_back, two_sizes

_BLOCK, _LAYER = r"blocks\.(\d+)\.", r"layers.\1."
NAMES: Table = (
    (r"(cls_token|pos_embed)", r"\1"),
    (r"patch_embed\.proj\.(.+)", r"patch_embed.projection.\1"),
    (r"norm_pre\.(.+)", r"pre_norm.\1"),
    (r"norm\.(.+)", r"ln1.\1"),
    (_BLOCK + r"norm([12])\.(.+)", _LAYER + r"ln\2.\3"),
    (_BLOCK + r"attn\.(qkv|proj)\.(.+)", _LAYER + r"attn.\2.\3"),
    (_BLOCK + r"ls1\.gamma", _LAYER + "attn.gamma1.weight"),
    (_BLOCK + r"ls2\.gamma", _LAYER + "ffn.gamma2.weight"),
    (_BLOCK + r"mlp\.fc1\.(.+)", _LAYER + r"ffn.layers.0.0.\2"),
    (_BLOCK + r"mlp\.fc2\.(.+)", _LAYER + r"ffn.layers.1.\2"),
)


def names_of(original: Original) -> dict[str, Tensor]:
    """The tensors under mmpretrain's names, without the prefix ``backbone.``.

    Raises:
        ConversionError: mmpretrain's classes cannot compute the same.
    """
    if original.is_swin():
        return mmdet_swin.names_of(original)
    if not original.is_vit():
        raise ConversionError(f"{original.path}: mmpretrain's layout is written for ViT and Swin only")
    if "cls_token" not in original.tensors or "reg_token" in original.tensors:
        raise ConversionError("mmpretrain's VisionTransformer has one class token and no register tokens")
    require_plain_mlp(original.skeleton, "mmpretrain's VisionTransformer")
    return rename(original.tensors, NAMES, "mmpretrain's VisionTransformer")


def write(original: Original, path: Path, options: Options) -> None:
    """Writes what mmengine's ``init_cfg=dict(type="Pretrained", prefix="backbone.")`` takes."""
    tensors = {f"backbone.{name}": tensor.contiguous() for name, tensor in names_of(original).items()}
    torch.save({"meta": original.metadata.to_strings(), "state_dict": tensors}, path)


def verify(original: Original, path: Path, options: Options) -> Agreement:
    """Loads the file with mmpretrain if it can be imported, else with mmdet (Swin) or our reader (ViT)."""
    loaded = read_back(original, path)
    if original.is_swin():
        return mmdet_swin.verify(original, path)
    sizes = two_sizes(original)
    remarks = resampling_remark(original, sizes[1], plain_bicubic, "mmpretrain")
    try:
        from mmpretrain.models.backbones import VisionTransformer
    except Exception as error:  # not installed, or broken by the versions of what it needs
        differences = compare_at(
            sizes,
            lambda size, image: features(original.model(size, plain_bicubic), image),
            lambda size, image: features(loaded.model(size, plain_bicubic), image),
        )
        reason = f"mmpretrain cannot be imported here ({type(error).__name__}: {error}), so its own class was not asked"
        return Agreement("mst_transfer's reader of this layout", differences, (reason, *remarks))
    model = VisionTransformer(**arguments(original))
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("backbone."): tensor.float() for name, tensor in state.items()})
    model.eval()
    differences = compare_at(
        sizes, lambda size, image: features(original.model(size, plain_bicubic), image), lambda _, x: _last(model, x)
    )
    return Agreement("mmpretrain's VisionTransformer", differences, remarks)


@torch.no_grad()
def _last(model: Any, image: Tensor) -> Tensor:
    return model(image)[-1]


def arguments(original: Original) -> dict[str, Any]:
    """What mmpretrain's ``VisionTransformer`` has to be built with."""
    vit = original.skeleton
    block = vit.blocks[0]
    arch = dict(
        embed_dims=vit.embed_dim,
        num_layers=len(vit.blocks),
        num_heads=block.attn.num_heads,
        feedforward_channels=block.mlp.fc1.out_features,
    )
    options: dict[str, Any] = dict(
        arch=arch, img_size=original.metadata.img_size, patch_size=original.metadata.patch_size
    )
    options |= dict(out_type="raw", norm_cfg=dict(type="LN", eps=block.norm1.eps))
    if block.attn.qkv.bias is None:
        options["qkv_bias"] = False
    if "blocks.0.ls1.gamma" in original.tensors:
        options["layer_scale_init_value"] = 1e-5
    if "norm_pre.weight" in original.tensors:
        options["pre_norm"] = True
    return options


def usage(original: Original, path: Path) -> str:
    """Config lines that use the file."""
    init = f'init_cfg=dict(type="Pretrained", checkpoint="{path}", prefix="backbone.")'
    if original.is_swin():
        return mmdet_swin.usage(original, init)
    words = ", ".join(f"{name}={value!r}" for name, value in arguments(original).items() if name != "out_type")
    return f'backbone=dict(type="mmpretrain.VisionTransformer", {words}, {init})'


TARGET = Target(
    "mmpretrain", (".pth",), "mmpretrain's VisionTransformer; Swin: also mmdet and mmseg", write, verify, usage
)
