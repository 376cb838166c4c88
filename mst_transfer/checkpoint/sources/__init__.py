"""The naming schemes of other projects, one module a family; the first whose anchor is in a file wins."""

from mst_transfer.checkpoint.sources.source import Source
from mst_transfer.checkpoint.sources.swin import SWIN_SOURCES
from mst_transfer.checkpoint.sources.vit import VIT_SOURCES

SOURCES: tuple[Source, ...] = (*SWIN_SOURCES, *VIT_SOURCES)

__all__ = ["SOURCES", "Source"]
