"""Renaming of tensors by tables of patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from timm.layers import GELU, Mlp
from torch import Tensor, nn

from mst_transfer.export.errors import ConversionError

Table = tuple[tuple[str, str], ...]  # (regular expression for a whole timm name, replacement)


def rename(tensors: Mapping[str, Tensor], table: Table, layout: str) -> dict[str, Tensor]:
    """Every tensor under the name that the first fitting row gives it.

    Args:
        tensors: under timm's names.
        table: the rows.
        layout: whose names these are, for messages.

    Raises:
        ConversionError: a tensor has no row: the layout has no place for it.
    """
    rows = [(re.compile(pattern), replacement) for pattern, replacement in table]
    renamed: dict[str, Tensor] = {}
    strangers = []
    for name, tensor in tensors.items():
        found = next((pattern.sub(new, name) for pattern, new in rows if pattern.fullmatch(name)), None)
        if found is None:
            strangers.append(name)
        else:
            assert found not in renamed, f"{found} is the name of two tensors"
            renamed[found] = tensor
    refuse_strangers(strangers, layout)
    return renamed


def refuse_strangers(names: Iterable[str], layout: str) -> None:
    """Refuses tensors that a layout has no place for.

    Raises:
        ConversionError: if there are any.
    """
    strangers = list(names)
    if strangers:
        raise ConversionError(
            f"{layout} has no place for {len(strangers)} of the backbone's tensors, e.g. {strangers[0]}: without them "
            "its features would differ. Choose another target"
        )


def require_plain_mlp(vit: Any, layout: str) -> None:
    """Refuses a ViT whose MLP is not two layers with an exact GELU between them: that leaves little trace in names.

    Args:
        vit: a timm ``VisionTransformer``.
        layout: which library cannot compute it, for messages.

    Raises:
        ConversionError: names what the MLP is.
    """
    mlp = vit.blocks[0].mlp
    plain = type(mlp) is Mlp and type(mlp.act) in (nn.GELU, GELU) and getattr(mlp.act, "approximate", "none") == "none"
    if not plain:
        raise ConversionError(
            f"{layout} has an MLP with GELU; this backbone has {type(mlp).__name__} with {type(mlp.act).__name__}. "
            "Choose another target"
        )


def split_qkv(tensors: Mapping[str, Tensor], query: str, key: str, value: str) -> dict[str, Tensor]:
    """Cuts joint projections ``….qkv.weight`` [3D, D] and ``….qkv.bias`` [3D] into three.

    Args:
        tensors: under any names; those that hold ``.qkv.`` are cut.
        query: what stands for ``qkv`` in the query's name, likewise ``key`` and ``value``.
    """
    cut: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".qkv." in name:
            for part, piece in zip((query, key, value), tensor.chunk(3), strict=True):
                cut[name.replace(".qkv.", f".{part}.")] = piece.contiguous()
        else:
            cut[name] = tensor
    return cut
