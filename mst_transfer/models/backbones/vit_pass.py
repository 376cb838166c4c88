"""One forward pass through the blocks of a timm ViT, with global attention or attention within windows.

Without windows and relative biases a block runs as timm wrote it. With them its attention is called in place of the
block, between the same norms, scales and residual sums: ``x + drop_path(scale(attention(norm1(x))))`` and then the MLP
likewise. Stochastic depth drops whole images, never single windows.

Shapes: B images, N patch tokens, P prefix tokens, D width, H heads, w side of a window.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit, gen_relative_position_index
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor

from mst_transfer.models.backbones.adapter import check_indices
from mst_transfer.models.backbones.vit_create import ViT
from mst_transfer.models.backbones.vit_positions import resample_table
from mst_transfer.models.backbones.vit_windows import Windows

WINDOW_BLOCKS = (Block, EvaBlock)


def check_windows(window_size: int, global_blocks: Sequence[int] | None, vit: ViT) -> tuple[int, ...]:
    """Blocks with global attention, counted among those that ``vit`` has kept; checks the adapter's arguments.

    Raises:
        ValueError: names the argument, its value and what is allowed.
    """
    if window_size < 0:
        raise ValueError(f"window_size={window_size} must be 0 (no windows) or a number of tokens, e.g. 14")
    if window_size == 0:
        if global_blocks is not None:
            raise ValueError(f"global_blocks={tuple(global_blocks)} has no effect with window_size=0; leave it out")
        return ()
    kinds = sorted({type(block).__name__ for block in vit.blocks if type(block) not in WINDOW_BLOCKS})
    if kinds:
        allowed = ", ".join(sorted(f"{block.__module__}.{block.__name__}" for block in WINDOW_BLOCKS))
        raise ValueError(f"window_size={window_size} is not supported for blocks of {kinds}, only of {allowed}")
    if getattr(vit, "rope_mixed", False):
        raise ValueError(f"window_size={window_size} is not supported where each block has rotations of its own")
    if global_blocks is not None and not global_blocks:
        return ()
    return check_indices(global_blocks, len(vit.blocks), "global_blocks")


def pre_norm_block(block: Any, tokens: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """A transformer block of timm with another way to call its attention.

    Args:
        block: one of ``WINDOW_BLOCKS``, or BEiT's.
        tokens: [B, P + N, D].
        attend: from normalised tokens to the output of the attention, both [B, P + N, D].
    """
    tokens = tokens + block.drop_path1(_scale(block, 1, attend(block.norm1(tokens))))
    return tokens + block.drop_path2(_scale(block, 2, block.mlp(block.norm2(tokens))))


def _scale(block: Any, number: int, branch: Tensor) -> Tensor:
    """LayerScale, which ``Block`` has as a module and the others as a parameter or None."""
    if isinstance(block, Block):
        return getattr(block, f"ls{number}")(branch)
    gamma = getattr(block, f"gamma_{number}")
    return branch if gamma is None else gamma * branch


def attend_with_bias(attention: BeitAttention, tokens: Tensor, bias: Tensor | None) -> Tensor:
    """BEiT's attention [B, N, D] with a bias [H, N, N] of any grid in place of that of its own table."""
    qkv_bias = None
    if attention.q_bias is not None:
        qkv_bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    qkv = F.linear(tokens, attention.qkv.weight, qkv_bias)
    query, key, value = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, N, d]
    mask = None if bias is None else bias[None].to(query.dtype)
    dropout = attention.attn_drop.p if attention.training else 0.0
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return attention.proj_drop(attention.proj(output.transpose(1, 2).flatten(2)))


class ViTPass:
    """What all blocks share in one forward pass.

    Args:
        vit: a ViT of ``create_vit``.
        grid: rows and columns of patches.
        num_prefix: P; 0 where the prefix tokens have been removed, as they are with windows.
        window_size: w; 0: attention is global in every block, not only in ``global_blocks``.
    """

    def __init__(
        self,
        vit: ViT,
        grid: tuple[int, int],
        batch_size: int,
        num_prefix: int,
        window_size: int = 0,
        global_blocks: tuple[int, ...] = (),
    ) -> None:
        self.vit, self.grid, self.batch_size, self.num_prefix = vit, grid, batch_size, num_prefix
        self.windows = Windows(grid, window_size) if window_size else None
        self.global_blocks = global_blocks
        rope = getattr(vit, "rope", None)
        self.rotation = None if rope is None else rope.get_embed(shape=grid)  # [N, 2d], or [depth, H, N, 2d]
        if self.windows is not None and self.rotation is not None:
            self.rotation = self.windows.order(self.rotation[None])[0]
            self.window_rotation = self.windows.rotations(self.rotation, batch_size)
        if isinstance(vit, Beit):
            self.entries = gen_relative_position_index(grid, vit.patch_embed.proj.weight.device)  # [1 + N, 1 + N]

    def order(self, tokens: Tensor) -> Tensor:
        """Tokens [B, P + N, D] in rows of patches, in the order in which ``run`` takes them."""
        return tokens if self.windows is None else self.windows.order(tokens)

    def patches(self, tokens: Tensor) -> Tensor:
        """Ordered tokens [B, P + N, D] → patch tokens [B, N, D] in rows of patches."""
        patches = tokens[:, self.num_prefix :]
        return patches if self.windows is None else self.windows.restore(patches)

    def run(self, index: int, tokens: Tensor) -> Tensor:
        """Block ``index`` on ordered tokens [B, P + N, D]."""
        if self.windows is None or index in self.global_blocks:
            return self._global_block(index, tokens)
        return self._window_block(index, tokens)

    def _global_block(self, index: int, tokens: Tensor) -> Tensor:
        block = self.vit.blocks[index]
        if isinstance(self.vit, Beit):
            return pre_norm_block(block, tokens, partial(attend_with_bias, block.attn, bias=self._bias(block.attn)))
        if self.rotation is not None:
            return block(tokens, rope=self.rotation if self.rotation.ndim == 2 else self.rotation[index])
        return block(tokens)

    def _window_block(self, index: int, patches: Tensor) -> Tensor:
        block, windows = self.vit.blocks[index], self.windows
        assert windows is not None
        options = {} if self.rotation is None else {"rope": self.window_rotation}

        def attend(normed: Tensor) -> Tensor:
            return windows.merge(block.attn(windows.split(normed), **options), self.batch_size)

        return pre_norm_block(block, patches, attend)

    def _bias(self, attention: BeitAttention) -> Tensor | None:
        """The bias [H, 1 + N, 1 + N] of one of BEiT's blocks: its own table's, the one shared by all, or their sum."""
        holders, name = (attention, self.vit.rel_pos_bias), "relative_position_bias_table"
        given = [table for holder in holders if (table := getattr(holder, name, None)) is not None]
        if not given:
            return None
        table = resample_table(torch.stack(given).sum(0), self.vit.patch_embed.grid_size, self.grid)
        return table[self.entries].permute(2, 0, 1)
