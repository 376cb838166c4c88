"""Naming scheme of the ViTs of mmpretrain, mmcls, MMSelfSup and mmseg."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mst_transfer.checkpoint.sources.rename import rename_all
from mst_transfer.checkpoint.sources.source import Source

_LAYER = re.compile(r"^layers\.\d+\.(ln|norm|attn\.)")
_RULES = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.ln([12])\.", r"\1.norm\2."),
    (r"\.attn\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"\.ffn\.w12\.", ".mlp.fc1."),
    (r"\.ffn\.w3\.", ".mlp.fc2."),
    (r"\.attn\.gamma1\.weight$", ".ls1.gamma"),
    (r"\.ffn\.gamma2\.(?:weight|scale)$", ".ls2.gamma"),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
    (r"^pre_(?:norm|ln)\.", "norm_pre."),
)


def _matches(tensors: Mapping[str, Tensor]) -> bool:
    """Its Swin Transformers have the same patch embedding; their blocks stand in stages."""
    return any(map(_LAYER.match, tensors))


def _rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames; mmseg's ViT has no bias in its patch embedding unless told so, timm's always has: zero."""
    renamed = rename_all(tensors, _RULES)
    weight = renamed["patch_embed.proj.weight"]
    if "norm_pre.weight" not in renamed:
        renamed.setdefault("patch_embed.proj.bias", torch.zeros(len(weight), dtype=weight.dtype))
    return renamed


OPENMMLAB = Source("mmpretrain, mmseg ViT", "patch_embed.projection.weight", _rename, _matches)
