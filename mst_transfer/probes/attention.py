"""Attention of an image's one feature over its tokens: of a ViT's class token, of the average of a Swin's last stage.

Swin has no class token; the average of its last-stage tokens takes its place. [ours]

Legend: B images, N = h * w tokens, T = prefix tokens (class, registers) + N of a ViT, D embedding, H heads, d = D / H.
"""

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from timm.layers import Attention, use_fused_attn
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from mst_transfer.probes.other_vits import is_plain, last_attention

Backbone: TypeAlias = VisionTransformer | SwinTransformer | Any  # of timm; Eva and Beit, which have no types, too


def class_token_attention(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Attends with the class token as the only query: cost O(T), not O(T^2).

    Normalised tokens x [B, T, D], class token first → its output [B, 1, D] and attention row [B, H, T], float32.
    """
    B, T, _ = x.shape
    weight, bias = attn.qkv.weight, attn.qkv.bias
    dim = attn.attn_dim
    q = F.linear(x[:, :1], weight[:dim], None if bias is None else bias[:dim])
    kv = F.linear(x, weight[dim:], None if bias is None else bias[dim:])
    q = attn.q_norm(q.view(B, 1, attn.num_heads, attn.head_dim).transpose(1, 2))  # [B, H, 1, d]
    k, v = kv.view(B, T, 2, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, T, d]
    k = attn.k_norm(k)
    row = _attention_row(q, k, attn.scale)  # [B, H, 1, T]
    out = (attn.attn_drop(row).to(v.dtype) @ v).transpose(1, 2).reshape(B, 1, dim)
    out = attn.norm(out)
    if attn.gate is not None:
        out = out * attn.gate(x[:, :1]).sigmoid()
    return attn.proj_drop(attn.proj(out)), row.squeeze(2)


def class_token_block(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the class token's output [B, 1, D] of a whole block, and its attention row [B, H, T].

    Equal to ``block(x)[:, :1]`` (tested), without computing the other tokens, whose outputs nobody reads when this
    is the last block.
    """
    out, row = class_token_attention(block.attn, block.norm1(x))
    cls = x[:, :1] + block.drop_path1(block.ls1(out))
    return cls + block.drop_path2(block.ls2(block.mlp(block.norm2(cls)))), row


def pooled_attention(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Attends from the averaged token to all tokens, with the projections of a block. [ours]

    The query is that of the mean of the tokens as the block's attention sees them (after ``norm1``); as the projection
    is linear, it is also the mean of their queries. The keys are the tokens' own, of the whole image whatever the
    window. There is no relative position bias: the average has no place. Costs O(N), no parameters.

    Tokens x [B, h, w, D] that enter a block of the last stage → float32 [B, H, N], rows sum to 1.
    """
    attn = block.attn
    tokens = block.norm1(x).flatten(1, 2)  # [B, N, D]
    weight, bias = attn.qkv.weight, attn.qkv.bias
    dim = weight.shape[0] // 3
    q = F.linear(tokens.mean(dim=1, keepdim=True), weight[:dim], None if bias is None else bias[:dim])
    k = F.linear(tokens, weight[dim : 2 * dim], None if bias is None else bias[dim : 2 * dim])
    q, k = (y.unflatten(2, (attn.num_heads, -1)).transpose(1, 2) for y in (q, k))  # [B, H, 1 or N, d]
    return _attention_row(q, k, attn.scale).squeeze(2)


def _attention_row(query: Tensor, keys: Tensor, scale: float) -> Tensor:
    """softmax(scale * q k'), [B, H, 1, d] and [B, H, T, d] → [B, H, 1, T], in float32: rounding would reorder it."""
    with torch.autocast(query.device.type, enabled=False):
        query, keys = query.float() * scale, keys.float()
        if query.is_cuda:  # where products of matrices may round to TF32
            return (query * keys).sum(dim=-1).unsqueeze(2).softmax(dim=-1)
        return (query @ keys.transpose(-2, -1)).softmax(dim=-1)


def choose_kernel(vit: VisionTransformer, x: Tensor) -> None:
    """Has timm's blocks take torch's fused kernel for tokens x [B, T, D], or spell softmax(q k^T) v out: equal results.

    Spelt out it is quicker on the CPU under 16-bit autocast: forward and backward of 384 sequences of 37 tokens took
    6.6 ms instead of 44.8, of 48 sequences of 197 tokens 8.6 ms instead of 27.3 (torch 2.14, one core with
    AVX512-BF16). For long sequences the T x T matrix costs more memory than it saves time.
    """
    spelt_out = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and x.shape[1] <= 1024
    for block in vit.blocks:
        block.attn.fused_attn = bool(use_fused_attn()) and not spelt_out


def before_last_block(vit: VisionTransformer, images: Tensor, num_kept: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Runs everything but the last block: normalised images [B, 3, H, W] → tokens [B, T, D] that enter it.

    Returns the tokens of the last ``num_kept`` blocks before it as well, earliest first, without the final norm.
    """
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    choose_kernel(vit, x)
    kept: list[Tensor] = []
    for missing, block in zip(range(len(vit.blocks) - 1, 0, -1), vit.blocks, strict=False):
        x = block(x)
        if missing <= num_kept:
            kept.append(x)
    return x, kept


def token_side(backbone: Backbone) -> int:
    """Side in pixels of a token of the last block: a ViT's patch, a last-stage token of a Swin."""
    mergings = len(backbone.layers) - 1 if isinstance(backbone, SwinTransformer) else 0
    return backbone.patch_embed.patch_size[0] << mergings


def token_grid(backbone: Backbone, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the last block's tokens of an image; a ValueError if a side, in pixels, is no multiple."""
    token = token_side(backbone)
    for side in (height, width):
        if side % token:
            low = side // token * token
            name = "side of Swin's last-stage tokens" if isinstance(backbone, SwinTransformer) else "patch size"
            raise ValueError(
                f"view of {height}x{width} px is not a multiple of the {name} {token}: choose a size such as "
                f"{max(low, token)} or {low + token}"
            )
    return height // token, width // token


def attention_maps(backbone: Backbone, images: Tensor) -> Tensor:
    """Attention of the class token over the patches in a ViT's last block, or of a Swin's pooled feature, per head.

    Normalised images [B, 3, H, W] → float32 [B, H, h, w]; errors are ``token_grid``'s. A head's map sums to 1 with
    Swin and to less with ViT, whose class token attends to itself and to registers too. Of a ViT without class token
    it is the average over the patches.
    """
    grid = token_grid(backbone, *images.shape[-2:])
    if isinstance(backbone, SwinTransformer):
        last = backbone.layers[-1]
        x = last.downsample(backbone.layers[:-1](backbone.patch_embed(images)))
        return pooled_attention(last.blocks[-1], last.blocks[:-1](x)).unflatten(2, grid)
    if not is_plain(backbone):
        return last_attention(backbone, images).unflatten(-1, grid)
    x, _ = before_last_block(backbone, images)
    last = backbone.blocks[-1]
    _, row = class_token_attention(last.attn, last.norm1(x))
    return row[..., backbone.num_prefix_tokens :].float().unflatten(-1, grid)
