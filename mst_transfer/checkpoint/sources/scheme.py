"""A naming scheme of backbone tensors, and the renaming that schemes share."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneNotCoveredError, BackboneRefusedError

_PART = re.compile(r"^((?:layers\.\d+\.)?blocks\.\d+\.attn)\.([qkv])\.(weight|bias)$")
Rules = Sequence[tuple[str, str]]
Names = Sequence[tuple[str, str]]  # a library's and timm's; ``#`` is a number, ``*`` the rest of a name


@dataclass(frozen=True)
class Source:
    """One naming scheme.

    Functions get the tensors of the backbone, their prefix removed.
    """

    name: str  # who uses it; unique
    anchor: str  # the tensor that identifies a backbone of this scheme
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]  # to timm's names; may reorder, split and merge tensors
    # whether tensors that hold the anchor are of this scheme and of no other with the same anchor
    matches: Callable[[Mapping[str, Tensor]], bool] = lambda tensors: True
    beside: tuple[str, ...] = ()  # tensors of the backbone that stand beside it in the file, not under its prefix
    # how their position embeddings were resampled in training (``mst_transfer.checkpoint.pos_embed``)
    interpolation: Callable[[Mapping[str, Tensor]], str] = lambda tensors: "timm"
    # numbers of attention heads of the published widths, ``{width: heads}``; they leave no trace in shapes
    num_heads: Mapping[int, int] = field(default_factory=dict)


def rename_all(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Applies regular expressions and their replacements to all names, each to what the one before has left.

    Raises:
        ValueError: if two tensors get the same name.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise ValueError(f"two tensors of the file would be named {new!r}, one of them is {name!r}")
        renamed[new] = tensor
    return renamed


def rules_of(names: Names) -> list[tuple[str, str]]:
    """Rules that give whole names of a table's left side those of its right side."""
    rules = []
    for old, new in names:
        groups = itertools.count(1)
        pattern = re.escape(old).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
        rules.append((f"^{pattern}$", re.sub(r"[#*]", lambda _: f"\\{next(groups)}", new)))  # noqa: B023 - used here
    return rules


def from_timm(tensors: Mapping[str, Tensor], names: Names, library: str) -> dict[str, Tensor]:
    """Gives timm's tensors a library's names, by the table of ``rules_of`` that they are read with.

    Raises:
        BackboneRefusedError: a tensor has no row: the library has no place for it.
    """
    rules = rules_of([(timms, theirs) for theirs, timms in names])
    strangers = [name for name in tensors if not any(re.match(pattern, name) for pattern, _ in rules)]
    if strangers:
        raise BackboneRefusedError(
            f"{library} has no place for {len(strangers)} of the backbone's tensors, e.g. {strangers[0]}: without them "
            "its features would differ. Choose another target"
        )
    return rename_all(tensors, rules)


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
