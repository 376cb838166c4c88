"""Naming schemes of ViTs that follow timm's: DINO, DINOv2, DINOv3, iBOT, MAE, MoCo v3, BEiT, SimMIM.

Three differ from timm in more than names:

- DINOv2 numbers blocks within chunks (``blocks.2.10.…``), and with register tokens its position embedding covers the
  class token but not the registers: timm's model adds none to either, so that of the class token is added here.
- DINOv3 keeps a bias for keys that a mask switches off, which timm leaves out.
- MoCo v3's ViT-S has 12 heads, twice as many as anyone else's; its fixed position embedding gives it away.
"""

import math
import re
from collections.abc import Mapping

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.checkpoint.sources.scheme import Source, rename_all

ANCHOR = "patch_embed.proj.weight"
_CHUNKED = re.compile(r"^blocks\.\d+\.\d+\.")
_DINOV2_RULES = (
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"^register_tokens$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
_DINOV3_RULES = (
    (r"^storage_tokens$", "reg_token"),
    (r"^rope_embed\.periods$", "rope.periods"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)


def fold_class_position(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds the class token's ``pos_embed`` [1, 1 + N, D] to it where there are register tokens, which have none."""
    folded = dict(tensors)
    if {"reg_token", "pos_embed", "cls_token"} <= set(tensors):
        folded["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
        folded["pos_embed"] = tensors["pos_embed"][:, 1:]
    return folded


def _is_dinov2(tensors: Mapping[str, Tensor]) -> bool:
    if "register_tokens" in tensors or any(map(_CHUNKED.match, tensors)):
        return True
    return "mask_token" in tensors and "blocks.0.ls1.gamma" in tensors


def _dinov2_interpolation(tensors: Mapping[str, Tensor]) -> str:
    """The published models without registers use DINO's resampling, those with registers plain antialiased bicubic."""
    return "timm" if "register_tokens" in tensors else "dino"


def _timm_interpolation(tensors: Mapping[str, Tensor]) -> str:
    """``dino`` for DINOv2 without registers under timm's names: LayerScale, patches of 14 px, positions of 518 px."""
    positions, patches = tensors.get("pos_embed"), tensors.get("patch_embed.proj.weight")
    if positions is None or patches is None or "blocks.0.ls1.gamma" not in tensors or "reg_token" in tensors:
        return "timm"
    return "dino" if patches.shape[-1] == 14 and positions.shape[1] == 37**2 + 1 else "timm"


def _rename_dinov2(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return fold_class_position(rename_all(tensors, _DINOV2_RULES))


def _rename_dinov3(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = rename_all({name: t for name, t in tensors.items() if not name.endswith("bias_mask")}, _DINOV3_RULES)
    for name in [name for name in renamed if name.endswith(".attn.qkv.bias")]:
        bias = renamed.pop(name)
        mask = tensors.get(f"{name}_mask")
        q, k, v = (bias if mask is None else bias * mask).chunk(3)
        if bool((k != 0).any()):
            raise BackboneRefusedError(
                f"{name} gives the keys a bias, which timm's DINOv3 has no place for. Use weights trained with "
                "mask_k_bias=True, as the published ones are"
            )
        attention = name.removesuffix(".qkv.bias")
        renamed |= {f"{attention}.q_bias": q, f"{attention}.v_bias": v}
    return renamed


def moco_v3_position(num_patches: int, dim: int) -> Tensor:
    """MoCo v3's fixed position embedding [1, 1 + N, D] of a square grid: rows first, zero for the class token."""
    grid = build_sincos2d_pos_embed([math.isqrt(num_patches)] * 2, dim, interleave_sin_cos=True)
    return torch.cat([torch.zeros(1, dim), grid])[None]


def is_moco_v3(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the position embedding is MoCo v3's."""
    found = tensors.get("pos_embed")
    if found is None or found.is_meta or found.ndim != 3 or found.shape[1] < 2 or found.shape[2] % 4:
        return False
    expected = moco_v3_position(found.shape[1] - 1, found.shape[2])
    return expected.shape == found.shape and torch.allclose(found.float(), expected, atol=1e-3)


def _is_beit(tensors: Mapping[str, Tensor]) -> bool:
    """Queries and values have biases, keys none; or attention adds a table of relative positions."""
    return "blocks.0.attn.q_bias" in tensors or any(name.endswith("relative_position_bias_table") for name in tensors)


MOCO_V3 = Source("MoCo v3", ANCHOR, dict, is_moco_v3, num_heads={384: 12, 768: 12})
TIMM_LIKE_SOURCES = (  # those with the surest marks first
    Source(
        "DINOv3",
        ANCHOR,
        _rename_dinov3,
        lambda tensors: "storage_tokens" in tensors or "rope_embed.periods" in tensors,
        num_heads={384: 6, 768: 12, 1024: 16, 1280: 20, 4096: 32},
    ),
    Source(
        "DINOv2",
        ANCHOR,
        _rename_dinov2,
        _is_dinov2,
        interpolation=_dinov2_interpolation,
        num_heads={384: 6, 768: 12, 1024: 16, 1536: 24},
    ),
    Source(
        "iBOT",
        ANCHOR,
        dict,
        lambda tensors: "masked_embed" in tensors,
        interpolation=lambda tensors: "dino",
        num_heads={192: 3, 384: 6, 768: 12, 1024: 16},
    ),
    Source("BEiT, SimMIM", ANCHOR, dict, _is_beit),
    Source(
        "MAE",
        ANCHOR,
        dict,
        lambda tensors: {"decoder_pos_embed", "decoder_embed.weight"} <= tensors.keys(),
        num_heads={768: 12, 1024: 16, 1280: 16},
    ),
    MOCO_V3,
    Source("timm, DINO, DeiT, MST", ANCHOR, dict, interpolation=_timm_interpolation),
)
