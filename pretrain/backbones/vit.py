"""timm's Vision Transformer with masked patch embeddings and the class token's attention row.

Legend: B images, N = h * w patches, T = prefix tokens (class, registers) + N, D embedding, H heads, d = D / H.
"""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mst_transfer.checkpoint.pos_embed import mark_interpolation, use_pos_embed_interpolation
from mst_transfer.probes.attention import choose_kernel, class_token_attention, class_token_block
from pretrain.backbones.masked import BackboneOutput, MaskedBackbone


class MaskedViT(MaskedBackbone):
    """A timm ViT; its cells are its patches.

    Args:
        arch: timm architecture name with a class token, e.g. ``vit_small_patch16_224`` (= DeiT-S/16).
        pos_embed_interpolation: how position embeddings are resampled for views of another size: ``timm`` (bicubic,
            antialiased) or ``dino`` (as in DINO's published code).
        **options: arguments of ``MaskedBackbone``.
    """

    vit: VisionTransformer

    def __init__(self, arch: str, pos_embed_interpolation: str = "timm", **options: Any) -> None:
        super().__init__(arch, **options)
        self.pos_embed_interpolation = pos_embed_interpolation
        use_pos_embed_interpolation(self.vit, pos_embed_interpolation)
        mark_interpolation(self, pos_embed_interpolation)

    def _embed(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        """Tokens [B, T, D] that enter the blocks, and the patch grid (h, w)."""
        vit = self.vit
        x = vit.patch_embed(images)  # [B, h, w, D]
        B, h, w, _ = x.shape
        if mask is not None:
            assert self.mask_token is not None and mask.shape == (B, h * w)
            x = torch.where(mask.view(B, h, w, 1), self.mask_token.to(x.dtype), x)
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))  # [B, T, D]
        choose_kernel(vit, x)
        return x, (h, w)

    def _through_blocks(self, x: Tensor, patch_tokens: bool, importance: bool) -> tuple[Tensor, Tensor | None]:
        """What enters the blocks, [B, T, D] → normalised tokens [B, T or 1, D], and the class token's row [B, H, T]."""
        vit, row = self.vit, None
        for block in vit.blocks[:-1]:
            x = self._run(block, x)
        last = vit.blocks[-1]
        if not patch_tokens:
            x, row = class_token_block(last, x)
            return vit.norm(x), row
        if importance:
            _, row = class_token_attention(last.attn, last.norm1(x))
        return vit.norm(last(x)), row

    def _output(self, x: Tensor, row: Tensor | None, grid: tuple[int, int] | None) -> BackboneOutput:
        first = self.vit.num_prefix_tokens
        patches = None if grid is None else x[:, first:].unflatten(1, grid)  # [B, h, w, D]
        attended = None if row is None else row[..., first:].float().mean(dim=1)
        return BackboneOutput(x[:, 0], patches, attended)
