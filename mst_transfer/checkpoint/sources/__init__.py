"""The naming schemes of other projects, one module a family; the first whose anchor is in a file wins."""

from mst_transfer.checkpoint.sources.huggingface import HUGGINGFACE, HUGGINGFACE_DINOV3
from mst_transfer.checkpoint.sources.openmmlab import OPENMMLAB
from mst_transfer.checkpoint.sources.scheme import Source
from mst_transfer.checkpoint.sources.swin import SWIN_SOURCES
from mst_transfer.checkpoint.sources.timm_like import TIMM_LIKE_SOURCES

SOURCES: tuple[Source, ...] = (*SWIN_SOURCES, *TIMM_LIKE_SOURCES, HUGGINGFACE, HUGGINGFACE_DINOV3, OPENMMLAB)

__all__ = ["SOURCES", "Source"]
