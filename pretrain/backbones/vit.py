"""timm's Vision Transformer with masked patch embeddings and the class token's attention row.

Legend: B images, N = h * w patches, T = prefix tokens (class, registers) + N, D embedding, H heads, d = D / H.
"""

from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mst_transfer.checkpoint.pos_embed import mark_interpolation, use_pos_embed_interpolation
from mst_transfer.checkpoint.recognise import is_head_tensor
from mst_transfer.devices.onednn_products import quick_recomputation
from pretrain.backbones.masked_backbone import BackboneOutput, MaskedBackbone, compiled


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


def explicit_attention_is_faster(x: Tensor) -> bool:
    """Whether softmax(q k^T) v, spelt out, beats torch's fused kernel for tokens x [B, T, D].

    On the CPU under 16-bit autocast it does: forward and backward of 384 sequences of 37 tokens took 6.6 ms instead
    of 44.8, of 48 sequences of 197 tokens 8.6 ms instead of 27.3 (torch 2.14, one core with AVX512-BF16). For
    long sequences the T x T matrix costs more memory than it saves time.
    """
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and x.shape[1] <= 1024


class MaskedViT(MaskedBackbone):
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

    needed = (
        "a plain Vision Transformer with a class token, e.g. vit_tiny_patch16_224, vit_small_patch16_224 or "
        "vit_base_patch16_224"
    )
    cell = "the patch size {size}"
    vit: VisionTransformer

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
        super().__init__(
            arch, {"img_size": img_size, **timm_kwargs}, drop_path_rate=drop_path_rate, dynamic_img_size=True
        )
        self._has_fused_attention = bool(self.vit.blocks[0].attn.fused_attn)
        self.grad_checkpointing, self.pos_embed_interpolation = grad_checkpointing, pos_embed_interpolation
        self._blocks = compiled(type(self)._through_blocks, compile_blocks, grad_checkpointing)
        use_pos_embed_interpolation(self.vit, pos_embed_interpolation)
        mark_interpolation(self, pos_embed_interpolation)
        nn.init.trunc_normal_(self.vit.cls_token, std=0.02)  # as DINO does; timm draws it with std 1e-6
        if with_mask_token:
            self.add_mask_token()

    def check_supported(self) -> None:
        """Refuses what is no plain ViT, or has layers that the class token does not pass."""
        vit = self.vit
        if pooled := sorted({name.split(".")[0] for name in vit.state_dict() if is_head_tensor(name)}):
            raise ValueError(
                f"backbone.arch = {self.arch!r} with {self.arch_kwargs} has {', '.join(pooled)} behind its tokens, "
                "which the class token does not pass; choose global_pool='token' and no fc_norm"
            )
        plain = isinstance(vit, VisionTransformer) and type(vit.blocks[-1]) is Block
        if not plain or type(vit.blocks[-1].attn) is not Attention or vit.cls_token is None:
            raise ValueError(
                f"backbone.arch = {self.arch!r} is a {type(vit).__name__} without what this needs: {self.needed}"
            )

    @property
    def embed_dim(self) -> int:
        return self.vit.embed_dim

    @property
    def cell_size(self) -> int:
        """Side in pixels of what a mask hides as one: a patch."""
        return self.patch_size

    @property
    def num_feature_blocks(self) -> int:
        """The largest ``num_blocks`` of :meth:`cls_tokens`."""
        return len(self.vit.blocks)

    def _choose_attention(self, fused: bool) -> None:
        """Have timm's blocks take the fused kernel or spell attention out; the same function."""
        for block in self.vit.blocks:
            block.attn.fused_attn = fused and self._has_fused_attention

    def _before_last_block(
        self, images: Tensor, mask: Tensor | None = None, num_class_tokens: int = 0
    ) -> tuple[Tensor, tuple[int, int], list[Tensor]]:
        """Everything but the last block.

        Args:
            images: [B, 3, H, W], normalised.
            mask: bool [B, N] or None.
            num_class_tokens: of how many of these blocks, counted from the end, to keep the class token.

        Returns:
            Tokens [B, T, D] that enter the last block, the patch grid (h, w), and the kept class tokens [B, D],
            earliest block first, not normalised.
        """
        vit = self.vit
        x = vit.patch_embed(images)  # [B, h, w, D]
        B, h, w, _ = x.shape
        if mask is not None:
            assert self.mask_token is not None and mask.shape == (B, h * w)
            x = torch.where(mask.view(B, h, w, 1), self.mask_token.to(x.dtype), x)
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))  # [B, T, D]
        self._choose_attention(fused=not explicit_attention_is_faster(x))
        kept: list[Tensor] = []
        first_kept = len(vit.blocks) - 1 - num_class_tokens
        if not num_class_tokens and not (self.grad_checkpointing and torch.is_grad_enabled()):
            return self._blocks(self, x), (h, w), kept
        for index, block in enumerate(vit.blocks[:-1]):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(quick_recomputation, x.device))
            else:
                x = block(x)
            if index >= first_kept:
                kept.append(x[:, 0])
        return x, (h, w), kept

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
        x, (h, w), _ = self._before_last_block(images, mask)
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

    def attention(self, images: Tensor) -> Tensor:
        """Attention of the class token over the patches in the last block, head by head.

        Args:
            images: [B, 3, H, W], normalised.

        Returns:
            float32 [B, H, h, w]. A head's row sums to less than 1: the class token attends to itself too.
        """
        x, grid, _ = self._before_last_block(images)
        last = self.vit.blocks[-1]
        _, row = class_token_attention(last.attn, last.norm1(x))
        return row[..., self.vit.num_prefix_tokens :].float().unflatten(-1, grid)

    def cls_tokens(self, images: Tensor, num_blocks: int = 1, average_patches: bool = False) -> Tensor:
        """Features of DINO's linear protocol: class tokens of the last blocks, each after the final norm.

        Args:
            images: [B, 3, H, W], normalised.
            num_blocks: n, how many of the last blocks; 4 for ViT-S and 1 for ViT-B in DINO.
            average_patches: also the mean of the last block's patch tokens after the norm (DINO's ViT-B).

        Returns:
            [B, D * (n + average_patches)]: n class tokens, earliest block first. With ``average_patches`` and
            n = 1 the two vectors alternate channel by channel (class 0, mean 0, class 1, mean 1, …), the order of
            DINO's published linear weights; with n > 1, which DINO's evaluation cannot do, the mean comes last.

        Raises:
            ValueError: if there are not that many blocks.
        """
        vit = self.vit
        if not 1 <= num_blocks <= len(vit.blocks):
            raise ValueError(f"num_blocks = {num_blocks} must lie in 1 … {len(vit.blocks)}, the number of blocks")
        x, _, kept = self._before_last_block(images, num_class_tokens=num_blocks - 1)
        x = vit.blocks[-1](x) if average_patches else class_token_block(vit.blocks[-1], x)[0]
        x = vit.norm(x)  # [B, T or 1, D]
        features = torch.cat([*(vit.norm(cls) for cls in kept), x[:, 0]], dim=-1)  # [B, n * D]
        if not average_patches:
            return features
        mean = x[:, vit.num_prefix_tokens :].mean(dim=1)  # [B, D]
        if num_blocks == 1:
            return torch.stack([features, mean], dim=-1).flatten(1)
        return torch.cat([features, mean], dim=-1)
