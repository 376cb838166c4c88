"""What happened to each tensor of a load, as data and as a table."""

from __future__ import annotations

from dataclasses import dataclass

from mst_transfer.checkpoint.errors import list_names


@dataclass(frozen=True)
class LoadReport:
    """What happened to each tensor of the model and of the file; names are timm's.

    Attributes:
        source: the file.
        loaded: names copied as they are.
        resized: names copied after resampling, with how, e.g. ``{"pos_embed": "14x14 -> 6x8"}``.
        missing: names of the model that the file lacks (only those that the caller allowed to be missing).
        unexpected: names of the file that the model has no place for.
        skipped: names of the file left out on purpose: heads, mask token, blocks that the model does without.
        remark: what is doubtful although everything fits; empty if nothing is.
        pos_embed_interpolation: how the position embeddings are to be resampled, now and in the forward pass.
        scheme: whose names the file bears, see :class:`~mst_transfer.checkpoint.read.BackboneFile`; may be empty.
        role: ``teacher`` or ``student`` where the file says so.
        normalisation: what to know of the images' normalisation; empty if nothing.
    """

    source: str
    loaded: tuple[str, ...]
    resized: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    skipped: tuple[str, ...]
    remark: str = ""
    pos_embed_interpolation: str = "timm"
    scheme: str = ""
    role: str | None = None
    normalisation: str = ""

    def table(self) -> str:
        """Counts and names as a few aligned lines of text."""
        rows = [
            ("loaded", len(self.loaded), ""),
            ("resized", len(self.resized), list_names([f"{k} {v}" for k, v in self.resized.items()])),
            ("missing", len(self.missing), list_names(self.missing)),
            ("unexpected", len(self.unexpected), list_names(self.unexpected)),
            ("skipped", len(self.skipped), list_names(self.skipped)),
        ]
        kind = ", ".join(filter(None, (self.scheme, self.role)))
        lines = [f"backbone weights from {self.source}" + (f" ({kind})" if kind else "")]
        lines += [f"  {name:<11}{count:>5}  {names}".rstrip() for name, count, names in rows]
        lines += [f"  normalisation: {self.normalisation}"] if self.normalisation else []
        lines += [f"  warning: {self.remark}"] if self.remark else []
        return "\n".join(lines)
