"""Names the timm architecture of a ViT checkpoint, from the names and shapes of its tensors."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import timm
from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.checkpoint.metadata import skeleton
from mst_transfer.checkpoint.sources.timm_like import MOCO_V3, is_moco_v3
from mst_transfer.checkpoint.timm_names import has_effect

_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1408: "giant", 1536: "giant"}
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16, 4096: 32}
_DINOV3_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge_plus", 4096: "7b"}
_DINOV3_HEADS = _HEADS | {1280: 20}
_OWN_TABLE, _SHARED_TABLE = "blocks.0.attn.relative_position_bias_table", "rel_pos_bias.relative_position_bias_table"
_GATE, _FC2 = "blocks.0.mlp.fc1_g.weight", "blocks.0.mlp.fc2.weight"
_DINOV3_REGISTERS = 4
_BLOCK = re.compile(r"^blocks\.(\d+)\.")


def infer_vit(tensors: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]]:
    """An architecture name of timm, and the overrides with which it has the shapes of tensors under timm's names.

    Only what names and shapes settle is inferred. Rotations, relative positions that are added to keys, the kind of a
    GELU and the epsilon of a norm leave no tensors: files that may have other ones than their kin are refused.

    Returns:
        E.g. ``("vit_small_patch14_dinov2", {"img_size": 224})``.

    Raises:
        BackboneRefusedError: if the tensors leave open which architecture it is.
    """
    _check_parts(tensors, source)
    tabled = _OWN_TABLE in tensors or _SHARED_TABLE in tensors
    absolute, with_class, gated = "pos_embed" in tensors, "cls_token" in tensors, _is_gated(tensors)
    if "rope.periods" in tensors or (not absolute and with_class and _registers(tensors) == _DINOV3_REGISTERS):
        return _infer_dinov3(tensors, source)
    if not absolute and not tabled:
        what = "no position embedding: its positions may be rotary or added in the attention"
        raise _unclear(source, what, "vit_small_patch16_rope_224")
    if tabled or "blocks.0.attn.q_bias" in tensors:
        if gated:
            what = "a SwiGLU beside biases of queries and values, as EVA-02 with its rotations"
            raise _unclear(source, what, "eva02_small_patch14_224")
        return _infer_beit(tensors, source)
    if "blocks.0.gamma_1" in tensors:
        what = "timm's names of Eva models, whose rotary positions leave no tensors"
        raise _unclear(source, what, "vit_small_patch16_rope_224")
    if not with_class and not {"fc_norm.weight", "blocks.0.attn.qkv.bias"} <= tensors.keys():
        what = "no class token: such models differ in their GELU or in where norms stand"
        raise _unclear(source, what, "vit_base_patch16_siglip_gap_224")
    if gated and "blocks.0.ls1.gamma" not in tensors:
        raise _unclear(source, "a gated MLP without LayerScale: its activation is unknown", "aimv2_large_patch14_224")
    return _infer_plain(tensors, source)


def _unclear(source: str, what: str, example: str) -> BackboneRefusedError:
    """What tensors show leaves more than one architecture."""
    return BackboneRefusedError(
        f"{source} has {what}; tensors do not show which. Name the architecture, e.g. arch={example!r}"
    )


def _check_parts(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses tensors that lack what every ViT has, or have what leaves the activation open."""
    projection, layer = tensors["patch_embed.proj.weight"], _first_layer(tensors)
    if projection.ndim != 4 or projection.shape[2] != projection.shape[3] or layer is None or _FC2 not in tensors:
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
    numbers = _block_numbers(tensors)
    if numbers != {str(number) for number in range(len(numbers))}:
        raise BackboneRefusedError(
            f"{source} has {len(numbers)} blocks that are not numbered from 0 on: some are missing"
        )


def _block_numbers(tensors: Mapping[str, Tensor]) -> set[str]:
    return {match[1] for match in map(_BLOCK.match, tensors) if match}


def _first_layer(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Weight of the first layer of the MLP; of one of its two halves if it is a SwiGLU in two tensors."""
    return tensors.get("blocks.0.mlp.fc1.weight", tensors.get(_GATE))


def _is_gated(tensors: Mapping[str, Tensor]) -> bool:
    layer = _first_layer(tensors)
    return layer is not None and (_GATE in tensors or layer.shape[0] != tensors[_FC2].shape[1])


def _registers(tensors: Mapping[str, Tensor]) -> int:
    return tensors["reg_token"].shape[1] if "reg_token" in tensors else 0


def _width(tensors: Mapping[str, Tensor]) -> int:
    return tensors["patch_embed.proj.weight"].shape[0]


def _common_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of every class. They are read off an architecture's own tensors too, to see where a file differs."""
    projection, layer = tensors["patch_embed.proj.weight"], _first_layer(tensors)
    assert layer is not None
    return {
        "patch_size": projection.shape[2],
        "in_chans": projection.shape[1],
        "embed_dim": len(projection),
        "depth": len(_block_numbers(tensors)),
        "mlp_ratio": _ratio(len(layer), len(projection)),
    }


def _infer_plain(tensors: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]]:
    usual = _HEADS | dict(MOCO_V3.num_heads) if is_moco_v3(tensors) else _HEADS
    heads = _customary_heads(usual, _width(tensors), source)
    return _named(_plain_arch(tensors), _plain_options, tensors, source, heads)


def _plain_options(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    options = _common_options(tensors)
    grid, without_class = _grid(tensors, source)
    averaged = "norm.weight" not in tensors and "fc_norm.weight" in tensors  # fc_norm stands behind the pooling
    if _GATE in tensors:  # timm's class has both halves in one tensor
        options["mlp_ratio"] *= 2
    return options | {
        "img_size": grid * options["patch_size"],
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in tensors else 0.0,  # timm.create_model drops None
        "reg_tokens": _registers(tensors),
        "no_embed_class": without_class,
        "class_token": "cls_token" in tensors,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "global_pool": "token" if "cls_token" in tensors and not averaged else "avg",
    }


def _grid(tensors: Mapping[str, Tensor], source: str) -> tuple[int, bool]:
    """Side of the grid, and whether only patches have positions (DeiT-III, FlexiViT; with registers)."""
    count, registers = tensors["pos_embed"].shape[1], _registers(tensors)
    prefix = sum(tensors[name].shape[1] for name in ("cls_token", "dist_token") if name in tensors)
    patches_only = bool(registers) or math.isqrt(count) ** 2 == count
    return _square(count if patches_only else count - prefix, source), patches_only and bool(prefix + registers)


def _plain_arch(tensors: Mapping[str, Tensor]) -> str:
    size, patch = _SIZES.get(_width(tensors), "base"), tensors["patch_embed.proj.weight"].shape[2]
    registers = "reg4_" if _registers(tensors) else ""
    if "dist_token" in tensors:
        return f"deit_{size if size in ('tiny', 'small') else 'base'}_distilled_patch16_224"
    if _is_gated(tensors):
        return f"vit_giant_patch14_{registers}dinov2"
    wanted = [f"vit_{size}_patch{patch}_224", f"vit_{size}_patch16_224", f"vit_{size}_patch14_224"]
    if "blocks.0.ls1.gamma" in tensors and patch == 14:
        wanted = [f"vit_{size}_patch14_{registers}dinov2", *wanted]
    return next((name for name in wanted if timm.is_model(name)), "vit_base_patch16_224")


def _infer_beit(tensors: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]]:
    table, width = tensors.get(_OWN_TABLE, tensors.get(_SHARED_TABLE)), _width(tensors)
    heads = table.shape[1] if table is not None else _customary_heads(_HEADS, width, source)
    arch = "beit_large_patch16_224" if width == 1024 else "beit_base_patch16_224"
    return _named(arch, _beit_options, tensors, source, heads)


def _beit_options(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    options, table = _common_options(tensors), tensors.get(_OWN_TABLE, tensors.get(_SHARED_TABLE))
    if table is not None:
        grid = (_square(len(table) - 3, source) + 1) // 2
    else:
        grid = _square(tensors["pos_embed"].shape[1] - 1, source)
    return options | {
        "img_size": grid * options["patch_size"],
        "init_values": 1e-5 if "blocks.0.gamma_1" in tensors or "blocks.0.ls1.gamma" in tensors else 0.0,
        "qkv_bias": "blocks.0.attn.q_bias" in tensors or "blocks.0.attn.qkv.bias" in tensors,
        "use_abs_pos_emb": "pos_embed" in tensors,
        "use_rel_pos_bias": _OWN_TABLE in tensors,
        "use_shared_rel_pos_bias": _SHARED_TABLE in tensors,
        "use_fc_norm": "norm.weight" not in tensors,
    }


def _infer_dinov3(tensors: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]]:
    width, periods = _width(tensors), tensors.get("rope.periods")
    heads = _customary_heads(_DINOV3_HEADS, width, source) if periods is None else width // (4 * len(periods))
    size = _DINOV3_SIZES.get(width, "base")
    if size == "small" and _is_gated(tensors):
        size = "small_plus"
    arch = f"vit_{size}_patch16_dinov3"
    if (_has_biases(tensors) and timm.is_model(f"{arch}_qkvb")) or not timm.is_model(arch):
        arch += "_qkvb"
    return _named(arch, _dinov3_options, tensors, source, heads)


def _dinov3_options(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    gated = _is_gated(tensors)
    return _common_options(tensors) | {
        "qkv_bias": _has_biases(tensors),
        "num_reg_tokens": _registers(tensors),
        "swiglu_mlp": gated,
        "swiglu_align_to": 8 if gated else 0,
    }


def _has_biases(tensors: Mapping[str, Tensor]) -> bool:
    return any(has_effect(tensors[name]) for name in tensors if name.endswith((".attn.q_bias", ".attn.v_bias")))


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


def _named(
    arch: str,
    options_of: Callable[[Mapping[str, Tensor], str], dict[str, Any]],
    tensors: Mapping[str, Tensor],
    source: str,
    heads: int,
) -> tuple[str, dict[str, Any]]:
    """The architecture, and those options of the tensors in which its own differ."""
    model = skeleton(arch)
    own = options_of(model.state_dict(), arch) | {"num_heads": model.blocks[0].attn.num_heads}
    found = options_of(tensors, source) | {"num_heads": heads}
    return arch, {name: value for name, value in found.items() if own[name] != value}
