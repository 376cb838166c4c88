"""One naming scheme of backbone tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Source:
    """One naming scheme.

    Attributes:
        name: who uses it.
        anchor: the tensor that identifies a backbone of this scheme.
        rename: turns the scheme's names (prefix removed) into timm's.
    """

    name: str
    anchor: str
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]
