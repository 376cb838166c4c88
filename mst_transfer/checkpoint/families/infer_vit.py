"""Which architecture of timm a ViT checkpoint is of, from the names and shapes of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.checkpoint.sources.facebook import MOCO_V3, is_moco_v3
from mst_transfer.checkpoint.spelling import has_effect

_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1408: "giant", 1536: "giant"}
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16, 4096: 32}
_DINOV3_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge_plus", 4096: "7b"}
_DINOV3_HEADS = _HEADS | {1280: 20}
_OWN_TABLE, _SHARED_TABLE = "blocks.0.attn.relative_position_bias_table", "rel_pos_bias.relative_position_bias_table"
_DINOV3_REGISTERS = 4
_BLOCK = re.compile(r"^blocks\.(\d+)\.")


@dataclass(frozen=True)
class _Shapes:
    """What the tensors of a ViT show.

    Attributes:
        width: D.
        hidden: outputs of the first layer of the MLP; of one of its two halves if it is a SwiGLU in two tensors.
        gated: whether the MLP is a SwiGLU.
    """

    width: int
    channels: int
    patch: int
    depth: int
    hidden: int
    gated: bool


def infer_vit(tensors: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]]:
    """An architecture name of timm, and the overrides with which it has a checkpoint's shapes.

    Only what names and shapes settle is inferred. Rotations, relative positions that are added to keys, the kind of a
    GELU and the epsilon of a norm leave no tensors: files that may have other ones than their kin are refused.

    Args:
        tensors: of the backbone, under timm's names.
        source: the file's name, for messages.

    Returns:
        E.g. ``("vit_small_patch14_dinov2", {"img_size": 224})``.

    Raises:
        BackboneRefusedError: if the tensors leave open which architecture it is.
    """
    shapes = _shapes(tensors, source)
    tabled = _OWN_TABLE in tensors or _SHARED_TABLE in tensors
    absolute, with_class = "pos_embed" in tensors, "cls_token" in tensors
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    if "rope.periods" in tensors or (not absolute and with_class and registers == _DINOV3_REGISTERS):
        return _infer_dinov3(tensors, shapes, source)
    if not absolute and not tabled:
        raise _unclear(source, "no position embedding: its positions may be rotary or added in the attention", _ROTARY)
    if tabled or "blocks.0.attn.q_bias" in tensors:
        if shapes.gated:
            raise _unclear(source, "a SwiGLU beside biases of queries and values, as EVA-02 with its rotations", _EVA)
        return _infer_beit(tensors, shapes, source)
    if "blocks.0.gamma_1" in tensors:
        raise _unclear(source, "timm's names of Eva models, whose rotary positions leave no tensors", _ROTARY)
    if not with_class and not {"fc_norm.weight", "blocks.0.attn.qkv.bias"} <= tensors.keys():
        raise _unclear(source, "no class token: such models differ in their GELU or in where norms stand", _NO_CLASS)
    if shapes.gated and "blocks.0.ls1.gamma" not in tensors:
        raise _unclear(source, "a gated MLP without LayerScale: its activation is unknown", "aimv2_large_patch14_224")
    return _infer_plain(tensors, shapes, source)


_ROTARY = "vit_small_patch16_rope_224"
_EVA = "eva02_small_patch14_224"
_NO_CLASS = "vit_base_patch16_siglip_gap_224"


def _unclear(source: str, what: str, example: str) -> BackboneRefusedError:
    """What tensors show leaves more than one architecture."""
    return BackboneRefusedError(
        f"{source} has {what}; tensors do not show which. Name the architecture, e.g. arch={example!r}"
    )


def _shapes(tensors: Mapping[str, Tensor], source: str) -> _Shapes:
    projection, first = tensors["patch_embed.proj.weight"], "blocks.0.mlp.fc1"
    layer, out = (
        tensors.get(f"{first}.weight", tensors.get(f"{first}_g.weight")),
        tensors.get("blocks.0.mlp.fc2.weight"),
    )
    if projection.ndim != 4 or projection.shape[2] != projection.shape[3] or layer is None or out is None:
        raise BackboneRefusedError(
            f"{source} does not show its architecture: it needs a square patch_embed.proj.weight [D, channels, p, p], "
            "and blocks.0.mlp with fc1 and fc2. Name the architecture: arch='vit_small_patch16_224' or another"
        )
    if "norm_pre.weight" in tensors:
        raise BackboneRefusedError(
            f"{source} has a norm before its blocks, as CLIP's image encoders do, some with QuickGELU and others with "
            "GELU; the file does not tell. Name the architecture, e.g. arch='vit_base_patch16_clip_224' or "
            "'vit_base_patch16_clip_quickgelu_224'"
        )
    numbers = {match[1] for match in map(_BLOCK.match, tensors) if match}
    if numbers != {str(number) for number in range(len(numbers))}:
        raise BackboneRefusedError(
            f"{source} has {len(numbers)} blocks that are not numbered from 0 on: some are missing"
        )
    return _Shapes(
        width=projection.shape[0],
        channels=projection.shape[1],
        patch=projection.shape[2],
        depth=len(numbers),
        hidden=layer.shape[0],
        gated=f"{first}_g.weight" in tensors or layer.shape[0] != out.shape[1],
    )


def _infer_plain(tensors: Mapping[str, Tensor], shapes: _Shapes, source: str) -> tuple[str, dict[str, Any]]:
    usual = _HEADS | dict(MOCO_V3.num_heads) if is_moco_v3(tensors) else _HEADS
    heads = _customary_heads(usual, shapes.width, source)
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    scaled = "blocks.0.ls1.gamma" in tensors
    arch = _plain_arch(tensors, shapes, registers, scaled)
    grid, without_class = _grid(tensors, registers, source)
    options = _common(shapes, heads) | {
        "init_values": 1e-5 if scaled else 0.0,  # timm.create_model drops None
        "reg_tokens": registers,
        "no_embed_class": without_class,
        "class_token": "cls_token" in tensors,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "global_pool": _pooling(tensors),
        "mlp_ratio": _ratio(shapes.hidden * (2 if "blocks.0.mlp.fc1_g.weight" in tensors else 1), shapes.width),
    }
    options["img_size"] = grid * shapes.patch
    return arch, _overrides(arch, options)


def _grid(tensors: Mapping[str, Tensor], registers: int, source: str) -> tuple[int, bool]:
    """Side of the grid, and whether only patches have positions (DeiT-III, FlexiViT; with registers)."""
    count = tensors["pos_embed"].shape[1]
    prefix = sum(tensors[name].shape[1] for name in ("cls_token", "dist_token") if name in tensors)
    patches_only = bool(registers) or math.isqrt(count) ** 2 == count
    return _square(count if patches_only else count - prefix, source), patches_only and bool(prefix + registers)


def _plain_arch(tensors: Mapping[str, Tensor], shapes: _Shapes, registers: int, scaled: bool) -> str:
    size, patch = _SIZES.get(shapes.width, "base"), shapes.patch
    if "dist_token" in tensors:
        return f"deit_{size if size in ('tiny', 'small') else 'base'}_distilled_patch16_224"
    if shapes.gated:
        return "vit_giant_patch14_reg4_dinov2" if registers else "vit_giant_patch14_dinov2"
    wanted = [f"vit_{size}_patch{patch}_224", f"vit_{size}_patch16_224", f"vit_{size}_patch14_224"]
    if scaled and patch == 14:
        wanted = [f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2", *wanted]
    return next((name for name in wanted if timm.is_model(name)), "vit_base_patch16_224")


def _pooling(tensors: Mapping[str, Tensor]) -> str:
    """A final norm behind the pooling, ``fc_norm``, comes with averaging."""
    if "norm.weight" not in tensors and "fc_norm.weight" in tensors:
        return "avg"
    return "token" if "cls_token" in tensors else "avg"


def _infer_beit(tensors: Mapping[str, Tensor], shapes: _Shapes, source: str) -> tuple[str, dict[str, Any]]:
    table = tensors.get(_OWN_TABLE, tensors.get(_SHARED_TABLE))
    heads = table.shape[1] if table is not None else _customary_heads(_HEADS, shapes.width, source)
    arch = "beit_large_patch16_224" if shapes.width == 1024 else "beit_base_patch16_224"
    if table is not None:
        grid = (_square(len(table) - 3, source) + 1) // 2
    else:
        grid = _square(tensors["pos_embed"].shape[1] - 1, source)
    options = _common(shapes, heads) | {
        "img_size": grid * shapes.patch,
        "init_values": 1e-5 if "blocks.0.gamma_1" in tensors or "blocks.0.ls1.gamma" in tensors else 0.0,
        "qkv_bias": "blocks.0.attn.q_bias" in tensors or "blocks.0.attn.qkv.bias" in tensors,
        "use_abs_pos_emb": "pos_embed" in tensors,
        "use_rel_pos_bias": _OWN_TABLE in tensors,
        "use_shared_rel_pos_bias": _SHARED_TABLE in tensors,
        "use_fc_norm": "norm.weight" not in tensors,
        "mlp_ratio": _ratio(shapes.hidden, shapes.width),
    }
    return arch, _overrides(arch, options)


def _infer_dinov3(tensors: Mapping[str, Tensor], shapes: _Shapes, source: str) -> tuple[str, dict[str, Any]]:
    if "rope.periods" in tensors:
        heads = shapes.width // (4 * len(tensors["rope.periods"]))
    else:
        heads = _customary_heads(_DINOV3_HEADS, shapes.width, source)
    size = _DINOV3_SIZES.get(shapes.width, "base")
    if size == "small" and shapes.gated:
        size = "small_plus"
    biases = [tensors[name] for name in tensors if name.endswith((".attn.q_bias", ".attn.v_bias"))]
    biased = any(map(has_effect, biases))
    arch = f"vit_{size}_patch16_dinov3"
    if (biased and timm.is_model(f"{arch}_qkvb")) or not timm.is_model(arch):
        arch += "_qkvb"
    options = _common(shapes, heads) | {
        "qkv_bias": biased,
        "num_reg_tokens": tensors["reg_token"].shape[1] if "reg_token" in tensors else 0,
        "swiglu_mlp": shapes.gated,
        "swiglu_align_to": 8 if shapes.gated else 0,
        "mlp_ratio": _ratio(shapes.hidden, shapes.width),
    }
    return arch, _overrides(arch, options)


def _common(shapes: _Shapes, heads: int) -> dict[str, Any]:
    return {
        "patch_size": shapes.patch,
        "in_chans": shapes.channels,
        "embed_dim": shapes.width,
        "depth": shapes.depth,
        "num_heads": heads,
    }


def _customary_heads(heads: Mapping[int, int], width: int, source: str) -> int:
    if width not in heads:
        raise BackboneRefusedError(
            f"{source} has width {width}, for which no number of attention heads is customary, and tensors do not show "
            f"it (known widths: {', '.join(map(str, heads))}). Name the architecture and its heads, e.g. "
            f"arch='vit_small_patch16_224' with embed_dim={width}, num_heads=…"
        )
    return heads[width]


def _square(count: int, source: str) -> int:
    """The side of a square of so many cells."""
    side = math.isqrt(max(count, 0))
    if side < 1 or side * side != count:
        raise BackboneRefusedError(
            f"{source}: its position embedding is for {count} positions, no square grid, and the file does not "
            "say which rectangle it is. Name the architecture and img_size=(height, width)"
        )
    return side


def _ratio(hidden: int, width: int) -> float:
    """``mlp_ratio`` for which ``int(width * mlp_ratio)`` is ``hidden``."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _overrides(arch: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options in which the architecture's own default differs."""
    model: Any = timm.create_model(arch, pretrained=False, num_classes=0, device="meta")
    state, block = model.state_dict(), model.blocks[0]
    layer = state.get("blocks.0.mlp.fc1.weight", state.get("blocks.0.mlp.fc1_g.weight"))
    own: dict[str, Any] = {
        "patch_size": model.patch_embed.patch_size[0],
        "in_chans": model.patch_embed.proj.weight.shape[1],
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "img_size": model.patch_embed.img_size[0],
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in state or "blocks.0.gamma_1" in state else 0.0,
        "reg_tokens": state["reg_token"].shape[1] if "reg_token" in state else 0,
        "no_embed_class": getattr(model, "no_embed_class", False),
        "class_token": "cls_token" in state,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state or "blocks.0.attn.q_bias" in state,
        "global_pool": model.global_pool,
        "use_abs_pos_emb": "pos_embed" in state,
        "use_rel_pos_bias": _OWN_TABLE in state,
        "use_shared_rel_pos_bias": _SHARED_TABLE in state,
        "use_fc_norm": "norm.weight" not in state,
        "swiglu_mlp": "blocks.0.mlp.fc1_g.weight" in state,
        "swiglu_align_to": 8 if "blocks.0.mlp.fc1_g.weight" in state else 0,
    }
    own["num_reg_tokens"] = own["reg_tokens"]
    if layer is not None:
        own["mlp_ratio"] = _ratio(layer.shape[0], model.embed_dim)
    return {name: value for name, value in options.items() if name not in own or own[name] != value}
