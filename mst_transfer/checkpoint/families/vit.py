"""Vision Transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mst_transfer.checkpoint.pos_embed import fit_pos_embed

if TYPE_CHECKING:
    from mst_transfer.checkpoint.metadata import BackboneMetadata

_BLOCK = re.compile(r"^blocks\.(\d+)(?:\.|$)")


class ViTFamily:
    """timm's ``VisionTransformer``."""

    name = "ViT"
    trunk: tuple[str, ...] = (
        *("patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token", "register_tokens"),
        *("storage_tokens", "norm_pre", "blocks", "norm"),
    )
    anchor = "patch_embed.proj.weight"

    def takes(self, model: nn.Module) -> bool:
        """Whether the model has a patch embedding."""
        return self.anchor in model.state_dict()

    def describe(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
        """Width, depth and patch."""
        projection = tensors[self.anchor]  # [D, channels, p, p]
        blocks = [int(match.group(1)) for match in map(_BLOCK.match, names) if match]
        return {"width": projection.shape[0], "depth": max(blocks, default=-1) + 1, "patch": projection.shape[-1]}

    def num_heads(self, model: nn.Module) -> int | None:
        """Number of attention heads of the first block."""
        for name, module in model.named_modules():
            if name.startswith("blocks.0.") and hasattr(module, "num_heads"):
                heads: Any = module.num_heads
                return int(heads)
        return None

    def fit(
        self,
        model: nn.Module,
        tensors: dict[str, Tensor],
        metadata: BackboneMetadata | None,
        interpolation: str,
        source: str,
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Resamples ``pos_embed`` to the model's grid."""
        fitted, resized = dict(tensors), {}
        if "pos_embed" in tensors and "pos_embed" in model.state_dict():
            grid = metadata.grid_size if metadata else None
            fitted["pos_embed"], change = fit_pos_embed(model, tensors["pos_embed"], grid, interpolation, source)
            if change:
                resized["pos_embed"] = change
        return fitted, resized
