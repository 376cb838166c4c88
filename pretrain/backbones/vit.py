"""timm's Vision Transformer with masked patch embeddings and the class token's attention row.

Legend: B images, N = h * w patches, T = prefix tokens (class, registers) + N, D embedding, H heads, d = D / H.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mst_transfer.checkpoint.pos_embed import mark_interpolation, use_pos_embed_interpolation
from mst_transfer.devices.compiler import can_compile
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


def compiled(
    function: Callable[..., Any], wanted: bool | None, grad_checkpointing: bool
) -> Callable[[Tensor, bool], Callable[..., Any]]:
    """Chooses between a method and the same by ``torch.compile``: one graph for each shape, compiled at its first call.

    Args:
        function: a method that is not bound: a copy of the module would keep one that is, and with it the original's
            weights.
        wanted: None: where ``can_compile``, but not with gradient checkpointing.

    Returns:
        A function of the input and ``in_step``: the method as it is outside of training steps, whose few shapes come
        again and again.

    Raises:
        ValueError: with gradient checkpointing, whose recomputation would not be compiled.
    """
    if wanted and grad_checkpointing:
        raise ValueError(
            "backbone.compile_blocks = True and backbone.grad_checkpointing = True exclude each other: choose the "
            "first for speed, the second for memory"
        )
    fused = functools.cache(lambda: torch.compile(function, dynamic=False))

    def choose(x: Tensor, in_step: bool) -> Callable[..., Any]:
        use = can_compile(x.device) if wanted is None and not grad_checkpointing else wanted
        return fused() if in_step and use else function

    return choose


class MaskedViT(nn.Module):
    """A timm ViT whose patch embeddings can be replaced by a learnable [MASK] embedding.

    Args:
        arch: timm architecture name with a class token, e.g. ``vit_small_patch16_224`` (= DeiT-S/16).
        img_size: side of the global views, in pixels; other sizes are accepted too.
        with_mask_token: whether the [MASK] embedding exists.
        drop_path_rate: stochastic depth, rising linearly over the blocks.
        grad_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile_blocks: let ``torch.compile`` fuse the blocks in training steps: one graph for each size of views, each
            compiled in the first step. None: on a GPU if Triton and a C compiler are found, and not with
            ``grad_checkpointing``. On the CPU it needs a C++ compiler.
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
        compile_blocks: bool | None = None,
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
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(quick_recomputation, x.device))
            else:
                x = block(x)
        last = vit.blocks[-1]
        if not patch_tokens:
            x, row = class_token_block(last, x)
            return vit.norm(x), row
        if importance:
            _, row = class_token_attention(last.attn, last.norm1(x))
        return vit.norm(last(x)), row

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        patch_tokens: bool = False,
        importance: bool = False,
        in_step: bool = False,
    ) -> BackboneOutput:
        """Features of ``images``.

        Args:
            images: [B, 3, H, W], normalised.
            mask: bool [B, N], True where the patch embedding is replaced by [MASK] *before* the position embedding
                is added; the token stays in the sequence.
            patch_tokens: also return the patch tokens.
            importance: also return the class token's attention over the patches.
            in_step: whether this is a step of training, where compiled blocks may be used.
        """
        first = self.vit.num_prefix_tokens
        x, shape = self._embed(images, mask)
        x, row = self._blocks(x, in_step)(self, x, patch_tokens, importance)
        grid = x[:, first:].unflatten(1, shape) if patch_tokens else None  # [B, h, w, D]
        attended = row[..., first:].float().mean(dim=1) if importance and row is not None else None
        return BackboneOutput(x[:, 0], grid, attended)
