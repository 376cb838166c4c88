"""timm's Vision Transformer with masked patch embeddings and the class token's attention row.

Legend: B images, N = h * w patches, T = prefix tokens (class, registers) + N, D embedding, H heads, d = D / H.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mst_transfer.checkpoint.pos_embed import mark_interpolation, use_pos_embed_interpolation
from mst_transfer.devices.onednn_products import quick_recomputation
from mst_transfer.probes.attention import choose_kernel, class_token_attention, class_token_block, token_grid
from mst_transfer.probes.backbones import create_backbone


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


def compiled(function: Callable[..., Any], wanted: bool, grad_checkpointing: bool) -> Callable[..., Any]:
    """The function, by ``torch.compile`` if that is wanted: one graph for each shape, compiled at its first call.

    Give a method that is not bound: a copy of the module would keep one that is, and with it the original's weights.

    Raises:
        ValueError: with gradient checkpointing, whose recomputation would not be compiled.
    """
    if not wanted:
        return function
    if grad_checkpointing:
        raise ValueError(
            "backbone.compile_blocks = True and backbone.grad_checkpointing = True exclude each other: choose the "
            "first for speed, the second for memory"
        )
    return torch.compile(function, dynamic=False)


class MaskedViT(nn.Module):
    """A timm ViT whose patch embeddings can be replaced by a learnable [MASK] embedding.

    Args:
        arch: timm architecture name with a class token, e.g. ``vit_small_patch16_224`` (= DeiT-S/16).
        img_size: side of the global views, in pixels; other sizes are accepted too.
        with_mask_token: whether the [MASK] embedding exists.
        drop_path_rate: stochastic depth, rising linearly over the blocks.
        grad_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile_blocks: let ``torch.compile`` fuse the blocks (not the last one): one graph for each size of views, each
            compiled in the first step. It needs a GPU, or a C++ compiler on the CPU; not with ``grad_checkpointing``.
        pos_embed_interpolation: how position embeddings are resampled for views of another size: ``timm`` (bicubic,
            antialiased) or ``dino`` (as in DINO's published code).
        **timm_kwargs: overrides of the architecture, e.g. ``patch_size=8, embed_dim=128, depth=6, num_heads=4``.
    """

    def __init__(
        self,
        arch: str = "vit_small_patch16_224",
        img_size: int = 224,
        with_mask_token: bool = True,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        compile_blocks: bool = False,
        pos_embed_interpolation: str = "timm",
        **timm_kwargs,
    ) -> None:
        super().__init__()
        self.arch = arch
        self.arch_kwargs = {"img_size": img_size, **timm_kwargs}
        self.vit: VisionTransformer = create_backbone(arch, drop_path_rate=drop_path_rate, **self.arch_kwargs)
        self.vit.requires_grad_(True)
        self.grad_checkpointing, self.pos_embed_interpolation = grad_checkpointing, pos_embed_interpolation
        self._blocks = compiled(type(self)._through_blocks, compile_blocks, grad_checkpointing)
        use_pos_embed_interpolation(self.vit, pos_embed_interpolation)
        mark_interpolation(self, pos_embed_interpolation)
        self.mask_token: nn.Parameter | None = None
        if with_mask_token:
            self.mask_token = nn.Parameter(torch.zeros(self.embed_dim))
            nn.init.trunc_normal_(self.mask_token, std=0.02)

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
        """Patches of an image of that size, in pixels; a ValueError if it is not one of whole patches."""
        rows, columns = token_grid(self.vit, height, width)
        return rows * columns

    def _before_last_block(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Everything but the last block.

        Args:
            images: [B, 3, H, W], normalised.
            mask: bool [B, N] or None.

        Returns:
            Tokens [B, T, D] that enter the last block, and the patch grid (h, w).
        """
        vit = self.vit
        x = vit.patch_embed(images)  # [B, h, w, D]
        B, h, w, _ = x.shape
        if mask is not None:
            assert self.mask_token is not None and mask.shape == (B, h * w)
            x = torch.where(mask.view(B, h, w, 1), self.mask_token.to(x.dtype), x)
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))  # [B, T, D]
        choose_kernel(vit, x)
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return self._blocks(self, x), (h, w)
        for block in vit.blocks[:-1]:
            x = checkpoint(block, x, use_reentrant=False, context_fn=partial(quick_recomputation, x.device))
        return x, (h, w)

    def _through_blocks(self, x: Tensor) -> Tensor:
        """[B, T, D] through all blocks but the last."""
        for block in self.vit.blocks[:-1]:
            x = block(x)
        return x

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
        x, (h, w) = self._before_last_block(images, mask)
        last, row = vit.blocks[-1], None
        if patch_tokens:
            if importance:
                _, row = class_token_attention(last.attn, last.norm1(x))
            x = vit.norm(last(x))
            grid = x[:, vit.num_prefix_tokens :].unflatten(1, (h, w))  # [B, h, w, D]
        else:
            x, row = class_token_block(last, x)
            x, grid = vit.norm(x), None
        attended = row[..., vit.num_prefix_tokens :].float().mean(dim=1) if importance and row is not None else None
        return BackboneOutput(x[:, 0], grid, attended)
