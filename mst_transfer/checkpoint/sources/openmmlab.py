"""Naming scheme of the ViTs of mmpretrain, mmcls, MMSelfSup and mmseg."""

import re

import torch
from torch import Tensor

from mst_transfer.checkpoint.sources.scheme import Source, rename_all, rules_of

_LAYER = re.compile(r"^layers\.\d+\.(ln|norm|attn\.)")  # blocks of a Swin, whose patch embedding is the same, differ
NAMES = (
    ("cls_token", "cls_token"),
    ("pos_embed", "pos_embed"),
    ("patch_embed.projection.*", "patch_embed.proj.*"),
    ("pre_norm.*", "norm_pre.*"),
    ("ln1.*", "norm.*"),
    ("layers.#.ln1.*", "blocks.#.norm1.*"),
    ("layers.#.ln2.*", "blocks.#.norm2.*"),
    ("layers.#.attn.qkv.*", "blocks.#.attn.qkv.*"),
    ("layers.#.attn.proj.*", "blocks.#.attn.proj.*"),
    ("layers.#.attn.gamma1.weight", "blocks.#.ls1.gamma"),
    ("layers.#.ffn.gamma2.weight", "blocks.#.ls2.gamma"),
    ("layers.#.ffn.layers.0.0.*", "blocks.#.mlp.fc1.*"),
    ("layers.#.ffn.layers.1.*", "blocks.#.mlp.fc2.*"),
)
_READ_ONLY = (  # mmseg's, BEiT's, SwiGLU's and others that are not written
    (r"^layers\.(\d+)\.", r"blocks.\1."),
    (r"\.attn\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.w12\.", ".mlp.fc1."),
    (r"\.ffn\.w3\.", ".mlp.fc2."),
    (r"\.ffn\.gamma2\.scale$", ".ls2.gamma"),
    (r"^ln2\.", "fc_norm."),
    (r"^pre_ln\.", "norm_pre."),
)


def _rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames; mmseg's ViT has no bias in its patch embedding unless told so, timm's always has: zero."""
    renamed = rename_all(tensors, [*rules_of(NAMES), *_READ_ONLY])
    weight = renamed["patch_embed.proj.weight"]
    if "norm_pre.weight" not in renamed:
        renamed.setdefault("patch_embed.proj.bias", torch.zeros(len(weight), dtype=weight.dtype))
    return renamed


OPENMMLAB = Source(
    "mmpretrain, mmseg ViT", "patch_embed.projection.weight", _rename, lambda tensors: any(map(_LAYER.match, tensors))
)
