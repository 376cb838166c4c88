"""One naming scheme of backbone tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


def always(tensors: Mapping[str, Tensor]) -> bool:
    """The anchor says it all."""
    return True


@dataclass(frozen=True)
class Source:
    """One naming scheme.

    Attributes:
        name: who uses it.
        anchor: the tensor that identifies a backbone of this scheme.
        rename: turns the scheme's names (prefix removed) into timm's; may reorder, split and merge tensors.
        matches: whether tensors (prefix removed) that hold the anchor are of this scheme and of no other with the same
            anchor.
    """

    name: str
    anchor: str
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    matches: Callable[[Mapping[str, Tensor]], bool] = always
