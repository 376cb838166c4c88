"""Naming scheme of the ViTs of mmpretrain, mmcls, MMSelfSup and mmseg."""

from __future__ import annotations

import re
from collections.abc import Mapping

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
    (r"\.attn\.gamma1\.weight$", ".gamma_1"),
    (r"\.ffn\.gamma2\.(?:weight|scale)$", ".gamma_2"),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
    (r"^pre_(?:norm|ln)\.", "norm_pre."),
)


def _matches(tensors: Mapping[str, Tensor]) -> bool:
    """Its Swin Transformers have the same patch embedding; their blocks stand in stages."""
    return any(map(_LAYER.match, tensors))


def _rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return rename_all(tensors, _RULES)


OPENMMLAB = Source("mmpretrain, mmseg ViT", "patch_embed.projection.weight", _rename, _matches)
