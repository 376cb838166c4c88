"""Renaming by patterns, and merging what timm keeps in one tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneNotCoveredError

_PART = re.compile(r"^((?:layers\.\d+\.)?blocks\.\d+\.attn)\.([qkv])\.(weight|bias)$")
Rules = Sequence[tuple[str, str]]


def rename_all(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Applies rules to all names, each rule to what the one before has left.

    Args:
        tensors: under any names.
        rules: regular expressions and their replacements.

    Raises:
        ValueError: if two tensors get the same name.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in compiled:
            new = pattern.sub(replacement, new)
        if new in renamed:
            raise ValueError(f"two tensors of the file would be named {new!r}, one of them is {name!r}")
        renamed[new] = tensor
    return renamed


def merge_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joins separate queries, keys and values ``blocks.N.attn.q`` … to ``qkv``, in this order; in stages too.

    Biases of queries and values alone become ``q_bias`` and ``v_bias``, as in timm's ``Beit``.

    Raises:
        BackboneNotCoveredError: if a block lacks one of the three.
    """
    merged: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _PART.match(name):
            parts.setdefault((match[1], match[3]), {})[match[2]] = tensor
        else:
            merged[name] = tensor
    for (attention, kind), found in parts.items():
        if set(found) == {"q", "k", "v"}:
            merged[f"{attention}.qkv.{kind}"] = torch.cat([found[part] for part in "qkv"])
        elif kind == "bias" and set(found) == {"q", "v"}:
            merged |= {f"{attention}.{part}_bias": tensor for part, tensor in found.items()}
        else:
            lacking = ", ".join(part for part in "qkv" if part not in found)
            raise BackboneNotCoveredError(
                f"the file is incomplete: {attention} has no {kind} of {lacking} beside that of {', '.join(found)}. "
                "Copy or write it again"
            )
    return merged
