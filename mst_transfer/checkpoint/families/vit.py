"""Vision Transformers: timm's ``VisionTransformer``, ``Beit`` and ``Eva``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor, nn

from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.checkpoint.metadata import BackboneMetadata
from mst_transfer.checkpoint.patch_embed import fit_patch_embed
from mst_transfer.checkpoint.pos_embed import fit_pos_embed

_BLOCK = re.compile(r"^blocks\.(\d+)(?:\.|$)")
_TABLE = "relative_position_bias_table"
_EXTRA_DISTANCES = 3  # from the class token, to it, and its own


class ViTFamily:
    """Vision Transformers of one width, with blocks in one list.

    Attributes:
        trunk: top-level names of tensors without which the features would differ.
        anchor: a tensor that every model of the family has.
    """

    trunk: tuple[str, ...] = (
        *("patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token", "norm_pre", "blocks", "norm"),
        *("rel_pos_bias", "cls_norm", "rope"),
    )
    anchor = "patch_embed.proj.weight"

    def describe(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
        """What a checkpoint and a model must have in common: width and depth; patches of another size are resampled.

        ``names`` are those of the tensors, and of others that are left out on purpose.
        """
        projection = tensors[self.anchor]  # [D, channels, p, p]
        blocks = [int(match.group(1)) for match in map(_BLOCK.match, names) if match]
        return {"width": projection.shape[0], "depth": max(blocks, default=-1) + 1}

    def num_heads(self, model: nn.Module) -> int | None:
        """Number of attention heads of the first block, which leaves no trace in shapes; None without attention."""
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
        """Resamples patch embedding, position embedding and tables of relative positions to the model.

        Returns:
            All tensors, and what was done to which, e.g. ``{"pos_embed": "14x14 -> 6x8"}``.

        Raises:
            BackboneRefusedError: a tensor cannot be resampled to the model.
        """
        wanted = model.state_dict()
        grid = metadata.grid_size if metadata else None
        _check_periods(model, tensors, source)
        fitted, resized = dict(tensors), {}
        for name in tensors.keys() & wanted.keys():
            change = ""
            if name == self.anchor:
                fitted[name], change = fit_patch_embed(tensors[name], wanted[name].shape, source)
            elif name == "pos_embed":
                fitted[name], change = fit_pos_embed(model, tensors[name], grid, interpolation, source)
            elif name.endswith(_TABLE):
                fitted[name], change = _fit_table(model, name, tensors[name], grid, source)
            if change:
                resized[name] = change
        return fitted, resized


def _fit_table(
    model: nn.Module, name: str, table: Tensor, grid: tuple[int, int] | None, source: str
) -> tuple[Tensor, str]:
    """A table of biases [(2h - 1)(2w - 1) + 3, heads], h x w patches, for the model's grid, as timm and BEiT do."""
    owner: Any = model.get_submodule(name.rpartition(".")[0])
    target = owner.relative_position_bias_table
    new: tuple[int, int] = tuple(owner.window_size)
    if table.ndim != 2:
        raise BackboneRefusedError(
            f"{source}: {name} has the shape {list(table.shape)}, but [distances, heads] is needed"
        )
    if table.shape[-1] != target.shape[-1]:
        raise BackboneRefusedError(
            f"{source} is of another architecture (checkpoint: heads {table.shape[-1]}; model: heads "
            f"{target.shape[-1]}): choose the arch and num_heads that the checkpoint was trained with"
        )
    side = (round((len(table) - _EXTRA_DISTANCES) ** 0.5) + 1) // 2
    old = grid or (side, side)
    if (2 * old[0] - 1) * (2 * old[1] - 1) + _EXTRA_DISTANCES != len(table):
        raise BackboneRefusedError(
            f"{source}: {name} has {len(table)} rows, which is not that of a grid of {old} patches"
        )
    if old == new:
        return table, ""
    resized = resize_rel_pos_bias_table(table, new, tuple(target.shape), old)
    return resized, f"{old[0]}x{old[1]} -> {new[0]}x{new[1]}"


def _check_periods(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Periods of rotary position embeddings show the number of heads and the temperature of a DINOv3.

    The published ones are rounded to bfloat16, timm computes them; both are used by their owners.
    """
    rope = getattr(model, "rope", None)
    given, own = tensors.get("rope.periods"), getattr(rope, "periods", None)
    if given is None or own is None:
        return
    if given.shape != own.shape or not torch.allclose(given.float(), own.float().cpu(), rtol=2**-8):
        raise BackboneRefusedError(
            f"{source} is of another architecture: its rotary position embedding has the periods "
            f"{given.float().tolist()[:3]}… for heads of width {4 * len(given)}, the model has {own.tolist()[:3]}… for "
            f"heads of width {4 * len(own)}. Set num_heads and rope_temperature to the checkpoint's"
        )
