"""Gives tensors the names of another of timm's classes: ``VisionTransformer``, ``Beit`` and ``Eva`` differ.

=====================  ==========================  ==========================================
what                   ``VisionTransformer``       ``Beit``, ``Eva``
=====================  ==========================  ==========================================
LayerScale             ``ls1.gamma``               ``gamma_1``
attention's bias       ``attn.qkv.bias``           ``attn.q_bias``, ``attn.v_bias``, keys none
SwiGLU's first layer   ``mlp.fc1``, gate first     ``mlp.fc1_g`` (gate), ``mlp.fc1_x``
relative positions     none                        a table in each block, or one for all
=====================  ==========================  ==========================================

Only rewritings that leave the features as they are happen here. A bias of the keys adds the same to a query's products
with all keys, which the softmax takes away again; only rotary position embeddings make it differ between keys.
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

_BLOCK = re.compile(r"^(blocks\.\d+)\.(.+)$")
_SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
_TABLE = "attn.relative_position_bias_table"


def to_names_of_model(tensors: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Gives tensors, under the names of any of timm's ViTs, those by which a model asks for them.

    Returns:
        The tensors, and names of biases that were left out because the model has no place for them and they have no
        effect.
    """
    wanted, rotary = model.state_dict().keys(), getattr(model, "rope", None) is not None
    renamed: dict[str, Tensor] = {}
    blocks: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _BLOCK.match(name):
            blocks.setdefault(match[1], {})[match[2]] = tensor
        else:
            renamed[name] = tensor
    left_out: list[str] = []
    shared = None if _SHARED_TABLE in wanted else renamed.get(_SHARED_TABLE)
    for block, members in blocks.items():
        asked = {name.removeprefix(f"{block}.") for name in wanted if name.startswith(f"{block}.")}
        if shared is not None and _TABLE in asked and _TABLE not in members:
            members[_TABLE] = shared
            renamed.pop(_SHARED_TABLE, None)
        if asked:
            _rename_scale(members, asked)
            _rename_gate(members, asked)
            left_out += [f"{block}.{name}" for name in _rename_bias(members, asked, rotary)]
        renamed |= {f"{block}.{name}": tensor for name, tensor in members.items()}
    return renamed, tuple(left_out)


def has_effect(bias: Tensor) -> bool:
    """Whether a bias is not all zero; one without memory counts as such."""
    return bias.is_meta or bool((bias != 0).any())


def _rename_scale(members: dict[str, Tensor], asked: Collection[str]) -> None:
    for number in "12":
        pair = (f"ls{number}.gamma", f"gamma_{number}")
        for old, new in (pair, pair[::-1]):
            if old in members and new in asked and old not in asked:
                members[new] = members.pop(old)


def _rename_gate(members: dict[str, Tensor], asked: Collection[str]) -> None:
    for kind in ("weight", "bias"):
        whole, gate, value = (f"mlp.{layer}.{kind}" for layer in ("fc1", "fc1_g", "fc1_x"))
        if {gate, value} <= set(members) and whole in asked:
            members[whole] = torch.cat([members.pop(gate), members.pop(value)])
        elif whole in members and {gate, value} <= set(asked):
            members[gate], members[value] = members.pop(whole).chunk(2)


def _rename_bias(members: dict[str, Tensor], asked: Collection[str], rotary: bool) -> list[str]:
    """Joins or splits the biases; returns the names of those without effect that nobody asked for."""
    whole, q, k, v = "attn.qkv.bias", "attn.q_bias", "attn.k_bias", "attn.v_bias"
    if {q, v} <= set(members) and whole in asked:
        members[whole] = torch.cat([members[q], torch.zeros_like(members[q]), members[v]])
        del members[q], members[v]
    elif whole in members and whole not in asked:
        parts = dict(zip((q, k, v), members[whole].chunk(3), strict=True))
        if not rotary or not has_effect(parts[k]):
            del members[whole]
            members |= parts
    without_effect = [
        name
        for name in (q, k, v)
        if name in members and name not in asked and (name == k or not has_effect(members[name]))
    ]
    for name in without_effect:
        del members[name]
    return without_effect
