"""Errors of checkpoints, and how they list names of tensors."""

from collections.abc import Iterable, Sequence


class BackboneRefusedError(ValueError):
    """A checkpoint is not of the model that is to take its weights, or its weights are no numbers."""


class BackboneNotCoveredError(BackboneRefusedError):
    """Tensors of the model have no counterpart in the checkpoint: they would silently stay random."""


def list_names(names: Sequence[str], limit: int = 5) -> str:
    """The first names, comma-separated, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names) - limit} more)"


def is_under(name: str, paths: Iterable[str]) -> bool:
    """Whether ``name`` is one of ``paths`` or a tensor of a module among them."""
    return any(name == path or name.startswith(f"{path.rstrip('.')}.") for path in paths)
