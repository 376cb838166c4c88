"""timm's Vision Transformer with masked patch embeddings and the class token's attention row.

Legend: B images, N = h * w patches, T = prefix tokens (class, registers) + N, D embedding, H heads, d = D / H.
"""

import difflib
from functools import partial
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NEEDED = (
    "a plain Vision Transformer with a class token, e.g. vit_tiny_patch16_224, vit_small_patch16_224 or "
    "vit_base_patch16_224"
)


class BackboneOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        cls_token: [B, D], after the final norm.
        patch_tokens: [B, h, w, D], after the final norm, or None when not asked for.
        importance: float32 [B, N], attention of the class token over the patches, averaged over heads, in the last
            block (MST, section 3.2), or None when not asked for.
    """

    cls_token: Tensor
    patch_tokens: Tensor | None
    importance: Tensor | None


def class_token_attention(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Self-attention with the class token as the only query: cost O(T), not O(T^2).

    Args:
        attn: timm's attention.
        x: normalised tokens [B, T, D], class token first.

    Returns:
        The class token's output [B, 1, D] and its attention row [B, H, T], float32, which sums to 1.
    """
    B, T, _ = x.shape
    weight, bias = attn.qkv.weight, attn.qkv.bias
    dim = attn.attn_dim
    q = F.linear(x[:, :1], weight[:dim], None if bias is None else bias[:dim])
    kv = F.linear(x, weight[dim:], None if bias is None else bias[dim:])
    q = attn.q_norm(q.view(B, 1, attn.num_heads, attn.head_dim).transpose(1, 2))  # [B, H, 1, d]
    k, v = kv.view(B, T, 2, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, T, d]
    k = attn.k_norm(k)
    with torch.autocast(x.device.type, enabled=False):  # rounding would reorder the importance
        row = ((q.float() * attn.scale) @ k.float().transpose(-2, -1)).softmax(dim=-1)  # [B, H, 1, T]
    out = (attn.attn_drop(row).to(v.dtype) @ v).transpose(1, 2).reshape(B, 1, dim)
    out = attn.norm(out)
    if attn.gate is not None:
        out = out * attn.gate(x[:, :1]).sigmoid()
    return attn.proj_drop(attn.proj(out)), row.squeeze(2)


def class_token_block(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """The class token's output [B, 1, D] of a whole block, and its attention row [B, H, T].

    Equal to ``block(x)[:, :1]`` (tested), without computing the other tokens, whose outputs nobody reads when this
    is the last block.
    """
    out, row = class_token_attention(block.attn, block.norm1(x))
    cls = x[:, :1] + block.drop_path1(block.ls1(out))
    return cls + block.drop_path2(block.ls2(block.mlp(block.norm2(cls)))), row


class MaskedViT(nn.Module):
    """A timm ViT whose patch embeddings can be replaced by a learnable [MASK] embedding.

    Args:
        arch: timm architecture name with a class token, e.g. ``vit_small_patch16_224`` (= DeiT-S/16).
        img_size: side of the global views, in pixels; other sizes are accepted too (position embeddings are
            resampled as timm does: bicubic, antialiased).
        with_mask_token: whether the [MASK] embedding exists.
        drop_path_rate: stochastic depth, rising linearly over the blocks.
        grad_checkpointing: recompute activations in the backward pass: less memory, more time.
        **timm_kwargs: overrides of the architecture, e.g. ``patch_size=8, embed_dim=128, depth=6, num_heads=4``.
    """

    def __init__(
        self,
        arch: str = "vit_small_patch16_224",
        img_size: int = 224,
        with_mask_token: bool = True,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        **timm_kwargs,
    ) -> None:
        super().__init__()
        if not timm.is_model(arch):
            near = difflib.get_close_matches(arch, timm.list_models("vit*"), n=3)
            hint = f"nearest: {', '.join(near)}" if near else "list them with timm.list_models('vit*')"
            raise ValueError(
                f"backbone.arch = {arch!r} is not an architecture of timm {timm.__version__}; {hint}"
            )
        self.arch = arch
        self.arch_kwargs = {"img_size": img_size, **timm_kwargs}
        build = partial(
            timm.create_model, arch, pretrained=False, num_classes=0, drop_path_rate=drop_path_rate
        )
        try:
            self.vit: VisionTransformer = build(dynamic_img_size=True, **self.arch_kwargs)
        except TypeError as error:
            raise ValueError(
                f"backbone: timm's {arch!r} does not take these arguments ({error}); pre-training needs {NEEDED}"
            ) from error
        self._check_supported()
        self.vit.requires_grad_(True)
        self.grad_checkpointing = grad_checkpointing
        nn.init.trunc_normal_(self.vit.cls_token, std=0.02)  # as DINO does; timm draws it with std 1e-6
        self.mask_token: nn.Parameter | None = None
        if with_mask_token:
            self.mask_token = nn.Parameter(torch.zeros(self.embed_dim))
            nn.init.trunc_normal_(self.mask_token, std=0.02)

    def _check_supported(self) -> None:
        vit = self.vit
        plain = isinstance(vit, VisionTransformer) and type(vit.blocks[-1]) is Block
        if not plain or type(vit.blocks[-1].attn) is not Attention or vit.cls_token is None:
            raise ValueError(
                f"backbone.arch = {self.arch!r} is a {type(vit).__name__} without what pre-training needs: {NEEDED}"
            )

    @property
    def embed_dim(self) -> int:
        return self.vit.embed_dim

    @property
    def patch_size(self) -> int:
        return self.vit.patch_embed.patch_size[0]

    @property
    def cell_size(self) -> int:
        """Side in pixels of what a mask hides as one: a patch."""
        return self.patch_size

    def num_patches(self, height: int, width: int) -> int:
        """Patches of an image of that size, in pixels."""
        for side in (height, width):
            if side % self.patch_size:
                low = side // self.patch_size * self.patch_size
                raise ValueError(
                    f"view of {height}x{width} px is not a multiple of the patch size {self.patch_size}: "
                    f"choose a size such as {max(low, self.patch_size)} or {low + self.patch_size}"
                )
        return (height // self.patch_size) * (width // self.patch_size)

    def forward(
        self, images: Tensor, mask: Tensor | None = None, patch_tokens: bool = False, importance: bool = False
    ) -> BackboneOutput:
        """Features of ``images``.

        Args:
            images: [B, 3, H, W], normalised.
            mask: bool [B, N], True where the patch embedding is replaced by [MASK] *before* the position embedding
                is added; the token stays in the sequence.
            patch_tokens: also return the patch tokens.
            importance: also return the class token's attention over the patches.
        """
        vit = self.vit
        x = vit.patch_embed(images)  # [B, h, w, D]
        B, h, w, D = x.shape
        if mask is not None:
            assert self.mask_token is not None and mask.shape == (B, h * w)
            x = torch.where(mask.view(B, h, w, 1), self.mask_token.to(x.dtype), x)
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))  # [B, T, D]
        for block in vit.blocks[:-1]:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        last, row = vit.blocks[-1], None
        if patch_tokens:
            if importance:
                _, row = class_token_attention(last.attn, last.norm1(x))
            x = vit.norm(last(x))
            grid = x[:, vit.num_prefix_tokens :].reshape(B, h, w, D)
        else:
            x, row = class_token_block(last, x)
            x, grid = vit.norm(x), None
        attended = (
            row[..., vit.num_prefix_tokens :].float().mean(dim=1) if importance and row is not None else None
        )
        return BackboneOutput(x[:, 0], grid, attended)
