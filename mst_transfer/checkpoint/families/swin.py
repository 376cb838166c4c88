"""Swin Transformers (version 1).

What a checkpoint tells by its shapes: width, blocks and heads of every stage, patch, window of every stage. Tables of
relative position biases are resampled where the model has other windows; timm's way, which spreads the rows of the old
table in a geometric progression.

Shapes: a window of h x w tokens has a table [(2h - 1) * (2w - 1), heads].
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from timm.layers import resize_rel_pos_bias_table
from torch import Tensor, nn

from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.checkpoint.metadata import BackboneMetadata, skeleton
from mst_transfer.checkpoint.patch_embed import fit_patch_embed

PROJECTION = "patch_embed.proj.weight"
TABLE = "relative_position_bias_table"
Window = tuple[int, int]
_BLOCK = re.compile(r"^layers\.(\d+)\.blocks\.(\d+)(?:\.|$)")


class SwinFamily:
    """timm's ``SwinTransformer``; members are those of ``ViTFamily``."""

    trunk: tuple[str, ...] = ("patch_embed", "absolute_pos_embed", "layers", "norm")
    anchor = f"layers.0.blocks.0.attn.{TABLE}"

    def describe(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
        """Width of the first stage, blocks and heads of every stage; patches of another size are resampled."""
        projection = tensors[PROJECTION]  # [C, channels, p, p]
        return {
            "width": projection.shape[0],
            "blocks of the stages": depths_of(names),
            "heads of the stages": tuple(
                table.shape[-1] if table.ndim else 0
                for name, table in tensors.items()
                if name.endswith(f".blocks.0.attn.{TABLE}")
            ),
        }

    def num_heads(self, model: nn.Module) -> None:
        """None: the shapes of the tables tell."""
        return None

    def fit(
        self,
        model: nn.Module,
        tensors: dict[str, Tensor],
        metadata: BackboneMetadata | None,
        interpolation: str,
        source: str,
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Resamples the patch embedding and the tables of relative position biases to the model's windows."""
        fitted, resized = dict(tensors), dict[str, str]()
        if PROJECTION in tensors:
            fitted[PROJECTION], change = fit_patch_embed(
                tensors[PROJECTION], model.state_dict()[PROJECTION].shape, source
            )
            resized |= {PROJECTION: change} if change else {}
        old_windows = dict(windows_of(skeleton(metadata.arch, **metadata.arch_kwargs))) if metadata else {}
        for name, new in windows_of(model):
            if name not in tensors:
                continue
            old = old_windows.get(name) or square_window(tensors[name], f"{source}: {name}", new)
            if old != new:
                table, shape = tensors[name], ((2 * new[0] - 1) * (2 * new[1] - 1), tensors[name].shape[1])
                fitted[name] = resize_rel_pos_bias_table(table, new, shape, old_window_size=old)
                resized[name] = f"window {old[0]}x{old[1]} -> {new[0]}x{new[1]}"
        return fitted, resized


def depths_of(names: Sequence[str]) -> tuple[int, ...]:
    """Number of blocks of every stage, from timm's names of tensors or modules."""
    blocks = [(int(match.group(1)), int(match.group(2))) for match in map(_BLOCK.match, names) if match]
    stages = max((stage for stage, _ in blocks), default=-1) + 1
    return tuple(max((block for at, block in blocks if at == stage), default=-1) + 1 for stage in range(stages))


def windows_of(model: nn.Module) -> Iterator[tuple[str, Window]]:
    """Name of every table of a timm Swin, and the window that it is for."""
    for name, module in model.named_modules():
        if hasattr(module, TABLE):
            attention: Any = module
            height, width = attention.window_size
            yield f"{name}.{TABLE}", (height, width)


def square_window(table: Tensor, what: str, otherwise: Window | None = None) -> Window:
    """The window of a table, taken to be square as all published ones are.

    Args:
        otherwise: a window that is taken if the table is not a square one's but has its size.

    Raises:
        BackboneRefusedError: if no window is known that has a table of this size.
    """
    side = math.isqrt(len(table))
    if side * side == len(table) and side % 2:
        return (side + 1) // 2, (side + 1) // 2
    if otherwise is not None and len(table) == (2 * otherwise[0] - 1) * (2 * otherwise[1] - 1):
        return otherwise
    raise BackboneRefusedError(
        f"{what} has {len(table)} rows, which is not (2 w - 1)^2 of a square window w; give the model the checkpoint's "
        "window_size=(height, width)"
    )
