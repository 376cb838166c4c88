"""Attention within (shifted) windows over a map of any size, with the weights of timm's Swin block.

A map whose sides are no multiples of the window is padded with zeros on the right and at the bottom, *before* the
cyclic shift, as in the detection code of Swin's authors, mmdet and mmseg. timm pads after it, which leaves some pairs
of distant tokens unmasked. A padded token takes part as a key (its value is the projection's bias), as there.

Shapes: map [B, H, W, C].
"""

import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from mst_transfer.devices.window_attention import attend_in_windows


def swin_block(block: SwinTransformerBlock, x: Tensor, shift_single_windows: bool = True) -> Tensor:
    """One Swin block, [B, H, W, C] → [B, H, W, C].

    Args:
        block: timm's, for its weights, its window and its shift; what it knows of the image's size is not used.
        x: the map.
        shift_single_windows: whether a side that one window covers is shifted nonetheless, as in mmdet and mmseg; timm
            and pre-training do not.
    """
    x = x + block.drop_path1(_window_attention(block, block.norm1(x), shift_single_windows))
    return x + block.drop_path2(block.mlp(block.norm2(x)))


def _window_attention(block: SwinTransformerBlock, x: Tensor, shift_single_windows: bool) -> Tensor:
    """Pads, shifts, attends, shifts back, cuts: [B, H, W, C] → [B, H, W, C]."""
    attn, (height, width) = block.attn, x.shape[1:3]
    window = attn.window_size
    shift = tuple(
        0 if side <= extent and not shift_single_windows else step
        for side, extent, step in zip((height, width), window, block.target_shift_size, strict=True)
    )
    below, right = -height % window[0], -width % window[1]
    if below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    return attend_in_windows(attn, x, shift)[:, :height, :width]
