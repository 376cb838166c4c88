"""The naming schemes of other projects, one module a family; the first whose anchor is in a file wins."""

from mst_transfer.checkpoint.sources.source import Source
from mst_transfer.checkpoint.sources.vit import VIT_SOURCES

SOURCES: tuple[Source, ...] = VIT_SOURCES

__all__ = ["SOURCES", "Source"]
