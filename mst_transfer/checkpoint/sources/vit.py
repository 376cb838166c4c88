"""Naming schemes of Vision Transformers, the ones with the surest marks first."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mst_transfer.checkpoint.sources.facebook import ANCHOR, DINOV2, DINOV3, MAE, MOCO_V3
from mst_transfer.checkpoint.sources.huggingface import HUGGINGFACE, HUGGINGFACE_DINOV3
from mst_transfer.checkpoint.sources.openmmlab import OPENMMLAB
from mst_transfer.checkpoint.sources.source import Source


def _is_beit(tensors: Mapping[str, Tensor]) -> bool:
    """Queries and values have biases, keys none; or attention adds a table of relative positions."""
    return "blocks.0.attn.q_bias" in tensors or any(name.endswith("relative_position_bias_table") for name in tensors)


def _is_ibot(tensors: Mapping[str, Tensor]) -> bool:
    return "masked_embed" in tensors


def _as_dino(tensors: Mapping[str, Tensor]) -> str:
    return "dino"


VIT_SOURCES = (
    DINOV3,
    DINOV2,
    Source("iBOT", ANCHOR, dict, _is_ibot, interpolation=_as_dino, num_heads={192: 3, 384: 6, 768: 12, 1024: 16}),
    Source("BEiT, SimMIM", ANCHOR, dict, _is_beit),
    MAE,
    MOCO_V3,
    Source("timm, DINO, DeiT, MST", ANCHOR, dict),
    HUGGINGFACE,
    HUGGINGFACE_DINOV3,
    OPENMMLAB,
)
