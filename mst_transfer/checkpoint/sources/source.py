"""One naming scheme of backbone tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


def always(tensors: Mapping[str, Tensor]) -> bool:
    """The anchor says it all."""
    return True


def as_timm(tensors: Mapping[str, Tensor]) -> str:
    """Position embeddings are resampled as timm does."""
    return "timm"


@dataclass(frozen=True)
class Source:
    """One naming scheme.

    Attributes:
        name: who uses it; unique.
        anchor: the tensor that identifies a backbone of this scheme.
        rename: turns the scheme's names (prefix removed) into timm's; may reorder, split and merge tensors.
        matches: whether tensors (prefix removed) that hold the anchor are of this scheme and of no other with the same
            anchor.
        beside: tensors of the backbone that stand beside it in the file, not under its prefix.
        interpolation: how the position embeddings among such tensors were resampled in training
            (:mod:`mst_transfer.checkpoint.pos_embed`).
        num_heads: numbers of attention heads of the published widths, ``{width: heads}``; they leave no trace in
            shapes.
    """

    name: str
    anchor: str
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    matches: Callable[[Mapping[str, Tensor]], bool] = always
    beside: tuple[str, ...] = ()
    interpolation: Callable[[Mapping[str, Tensor]], str] = as_timm
    num_heads: Mapping[int, int] = field(default_factory=dict)
