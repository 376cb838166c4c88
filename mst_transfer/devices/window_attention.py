"""Attention within (shifted) windows in as few kernels as the processor allows, with the weights of timm's Swin block.

After the shift, only the windows of the last row and of the last column hold tokens of different regions, and always
in the same arrangement. So a mask is two [N, N] matrices, whatever the map's size.

Shapes: map [B, H, W, C]; windows of h x w tokens, N = h * w; R rows and S columns of windows; M heads of width d.
"""

import functools

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import WindowAttention
from torch import Tensor

MASKED = -100.0  # added to the score of a pair of different regions; Swin's value
_ALIGNMENT = 8  # what CUDA's fused kernels want the rows of an attention bias to be a multiple of


def attend_in_windows(attn: WindowAttention, x: Tensor, shift: tuple[int, ...]) -> Tensor:
    """Shifts, attends and shifts back a map whose sides are multiples of the window's, [B, H, W, C] → [B, H, W, C]."""
    if not any(shift):
        return _attend(attn, x, shift)
    return _attend(attn, x.roll((-shift[0], -shift[1]), dims=(1, 2)), shift).roll(shift, dims=(1, 2))


def _attend(attn: WindowAttention, x: Tensor, shift: tuple[int, ...]) -> Tensor:
    """Self-attention within the windows of a map whose sides are multiples of the window's.

    Splitting into windows and into heads is one copy of the projections, and joining them one of the result.
    """
    (h, w), heads = attn.window_size, attn.num_heads
    rows, columns = x.shape[1] // h, x.shape[2] // w
    qkv = attn.qkv(x).view(-1, rows, h, columns, w, 3, heads, attn.qkv.out_features // (3 * heads))
    qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6)  # [3, B, R, S, M, N, d]
    bias = _position_bias(attn)
    if x.is_cuda or not _needs_gradient(qkv, bias):
        out = _attend_fused(attn, qkv, bias, shift)
    else:
        out = _attend_in_steps(attn, qkv, bias, shift)  # the CPU's fused kernel gives no gradient of a bias
    out = out.unflatten(4, (h, w)).permute(0, 1, 4, 2, 5, 3, 6)  # [B, R, h, S, w, M, d]
    return attn.proj_drop(attn.proj(out.reshape(*x.shape[:3], -1)))


def _attend_fused(attn: WindowAttention, qkv: Tensor, bias: Tensor, shift: tuple[int, ...]) -> Tensor:
    """softmax(q k' / sqrt(d) + bias + mask) v by PyTorch's fused kernel: [3, B, R, S, M, N, d] → [B, R, S, M, N, d]."""
    B, rows, columns, heads, N = qkv.shape[1:6]
    bias = F.pad(bias, (0, -N % _ALIGNMENT)).to(qkv.dtype)
    if any(shift):
        bias = bias.expand(rows, columns, -1, -1, -1).clone()
        _add_masks(bias[..., :N], attn.window_size, shift)
        q, k, v = qkv.flatten(2, 4).unbind(0)  # [B, R * S * M, N, d]
        bias = bias[..., :N].flatten(0, 2).expand(B, -1, -1, -1)
    else:
        q, k, v = qkv.flatten(1, 3).unbind(0)  # [B * R * S, M, N, d]
        bias = bias[..., :N].expand(len(q), -1, -1, -1)
    dropout = attn.attn_drop.p if attn.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=dropout, scale=attn.scale)
    return out.view(qkv.shape[1:])


def _attend_in_steps(attn: WindowAttention, qkv: Tensor, bias: Tensor, shift: tuple[int, ...]) -> Tensor:
    """The same as ``_attend_fused``, step by step."""
    heads, N = qkv.shape[4:6]
    q, k, v = qkv.flatten(1, 4).unbind(0)  # [B * R * S * M, N, d]
    bias = bias.to(qkv.dtype).expand(len(q) // heads, -1, -1, -1).reshape(-1, N, N)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=attn.scale).view(*qkv.shape[1:6], N)
    if any(shift):
        _add_masks(scores, attn.window_size, shift)
    weights = attn.attn_drop(scores.softmax(dim=-1)).flatten(0, 3)
    return torch.bmm(weights.to(v.dtype), v).view(qkv.shape[1:])


def _add_masks(scores: Tensor, window: tuple[int, int], shift: tuple[int, ...]) -> None:
    """Adds, in place, what keeps regions apart to the scores [..., R, S, M, N, N] of the last row and column.

    No gradient goes through a constant, so none is recorded.
    """
    with torch.no_grad():
        for axis, place in ((0, scores[..., -1, :, :, :, :]), (1, scores[..., -1, :, :, :])):
            if shift[axis]:
                place += _mask(window, axis, shift[axis], scores.device, scores.dtype)


@functools.lru_cache(maxsize=64)
def _mask(window: tuple[int, int], axis: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[N, N]: ``MASKED`` between the tokens before and behind the seam of a window of the last row or column."""
    places = torch.arange(window[axis]) >= window[axis] - shift
    side = places[:, None].expand(window) if axis == 0 else places.expand(window)
    side = side.flatten()
    return ((side[:, None] != side) * MASKED).to(device, dtype)


def _position_bias(attn: WindowAttention) -> Tensor:
    """The bias of every pair of tokens of a window, [M, N, N]."""
    index = attn.relative_position_index
    return attn.relative_position_bias_table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
