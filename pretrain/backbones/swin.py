"""timm's Swin Transformer with masked patch embeddings and the attention of its pooled feature.

Swin has no class token. The average of its last-stage tokens takes its place, for the head and for the importance,
and what a mask hides as one, a *cell*, is what becomes one last-stage token: 32 x 32 px, 8 x 8 patches of 4 px. [ours]

Legend: B images, N = h * w last-stage tokens (cells), D their width, H heads of the last stage, d = D / H, C width of
the patch embeddings.
"""

from functools import partial

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mst_transfer.devices.onednn_products import quick_recomputation
from pretrain.backbones.masked_backbone import BackboneOutput, MaskedBackbone, compiled


def pooled_attention(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Attention of the averaged token over all tokens, with the projections of a block. [ours]

    The query is that of the mean of the tokens as the block's attention sees them (after ``norm1``); as the projection
    is linear, it is also the mean of their queries. The keys are the tokens' own, of the whole image whatever the
    window. There is no relative position bias: the average has no place. Costs O(N), no parameters.

    Args:
        block: of the last stage.
        x: tokens [B, h, w, D], the block's input.

    Returns:
        float32 [B, H, N], rows sum to 1.
    """
    attn = block.attn
    tokens = block.norm1(x).flatten(1, 2)  # [B, N, D]
    weight, bias = attn.qkv.weight, attn.qkv.bias
    dim = weight.shape[0] // 3
    q = F.linear(tokens.mean(dim=1, keepdim=True), weight[:dim], None if bias is None else bias[:dim])
    k = F.linear(tokens, weight[dim : 2 * dim], None if bias is None else bias[dim : 2 * dim])
    q, k = (y.unflatten(2, (attn.num_heads, -1)).transpose(1, 2) for y in (q, k))  # [B, H, 1 or N, d]
    with torch.autocast(x.device.type, enabled=False):  # rounding would reorder the importance
        return ((q.float() * attn.scale) @ k.float().transpose(-2, -1)).softmax(dim=-1).squeeze(2)


class MaskedSwin(MaskedBackbone):
    """A timm Swin Transformer whose patch embeddings can be replaced, cell by cell, by a learnable [MASK] embedding.

    Images of any multiple of ``cell_size`` are accepted and give what timm gives for them with
    ``strict_img_size=False``: windows and shifts stay those of ``img_size``, and a stage whose grid is no multiple of
    its window is padded with zeros at the bottom and on the right. timm pads *after* the cyclic shift, so that in a
    padded grid some of the first rows and columns, which the shift has moved to the end, are not masked from the last.

    Args:
        arch: timm architecture name, e.g. ``swin_tiny_patch4_window7_224``.
        img_size: side of the global views, in pixels. A stage whose whole grid is not larger than the window gets a
            window of the grid's size and no shift, as in timm.
        with_mask_token: whether the [MASK] embedding exists.
        drop_path_rate: stochastic depth, rising linearly over the blocks.
        grad_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile_blocks: let ``torch.compile`` fuse the stages, as in :class:`~pretrain.backbones.vit.MaskedViT`.
        **timm_kwargs: overrides of the architecture, e.g. ``embed_dim=24, depths=(1, 1, 2, 1)``.

    Attributes:
        mask_token: [C], or None.
    """

    needed = "a Swin Transformer, e.g. swin_tiny_patch4_window7_224 or swin_small_patch4_window7_224"
    cell = "{size}, the side of its last-stage tokens"
    vit: SwinTransformer

    def __init__(
        self,
        arch: str = "swin_tiny_patch4_window7_224",
        img_size: int = 224,
        with_mask_token: bool = True,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        compile_blocks: bool = False,
        **timm_kwargs,
    ) -> None:
        super().__init__(
            arch, {"img_size": img_size, **timm_kwargs}, drop_path_rate=drop_path_rate, strict_img_size=False
        )
        self.grad_checkpointing = grad_checkpointing
        self._through_stages = compiled(type(self)._tokens, compile_blocks, grad_checkpointing)
        if with_mask_token:
            self.add_mask_token()

    def check_supported(self) -> None:
        """Refuses what is no Swin Transformer."""
        if not isinstance(self.vit, SwinTransformer):
            raise ValueError(
                f"backbone.arch = {self.arch!r} is a {type(self.vit).__name__}; this backbone needs {self.needed}"
            )

    @property
    def embed_dim(self) -> int:
        """Width D of the pooled feature."""
        return self.vit.num_features

    @property
    def cell_size(self) -> int:
        """Side in pixels of what a mask hides as one: a last-stage token."""
        return self.patch_size * 2 ** (len(self.vit.layers) - 1)

    @property
    def num_feature_blocks(self) -> int:
        """The largest ``num_blocks`` of :meth:`cls_tokens`."""
        return 1

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """What enters the blocks: [B, H / p, W / p, C], with [MASK] in the hidden cells."""
        height, width = images.shape[-2:]
        num_cells = self.num_patches(height, width)
        x = self.vit.patch_embed(images)
        if mask is not None:
            assert self.mask_token is not None and mask.shape == (len(images), num_cells)
            scale = self.cell_size // self.patch_size
            hidden = mask.view(-1, height // self.cell_size, width // self.cell_size)
            hidden = hidden.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
            x = torch.where(hidden[..., None], self.mask_token.to(x.dtype), x)
        return x

    def _tokens(self, x: Tensor, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Patch embeddings → normalised last-stage tokens [B, h, w, D], and the pooled feature's row [B, H, N]."""
        last, row = self.vit.layers[-1].blocks[-1], None
        for stage in self.vit.layers:
            x = stage.downsample(x)
            for block in stage.blocks:
                if with_attention and block is last:
                    row = pooled_attention(block, x)
                if self.grad_checkpointing and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False, context_fn=partial(quick_recomputation, x.device))
                else:
                    x = block(x)
        return self.vit.norm(x), row

    def forward(
        self, images: Tensor, mask: Tensor | None = None, patch_tokens: bool = False, importance: bool = False
    ) -> BackboneOutput:
        """Features of ``images``.

        Args:
            images: [B, 3, H, W], normalised; H and W multiples of ``cell_size``.
            mask: bool [B, N], True where the embeddings of a cell's patches are replaced by [MASK] before the first
                block; they stay in their place.
            patch_tokens: also return the last-stage tokens [B, h, w, D].
            importance: also return the pooled feature's attention over the last-stage tokens, averaged over heads.

        Returns:
            The average of the normalised last-stage tokens stands for ``cls_token``.
        """
        tokens, row = self._through_stages(self, self._embed(images, mask), with_attention=importance)
        return BackboneOutput(
            cls_token=tokens.mean(dim=(1, 2)),
            patch_tokens=tokens if patch_tokens else None,
            importance=None if row is None else row.mean(dim=1),
        )

    def attention(self, images: Tensor) -> Tensor:
        """Attention of the pooled feature over the last-stage tokens, head by head.

        Args:
            images: [B, 3, H, W], normalised.

        Returns:
            float32 [B, H, h, w]; each head's sums to 1.
        """
        tokens, row = self._through_stages(self, self._embed(images, None), with_attention=True)
        assert row is not None
        return row.unflatten(2, tuple(tokens.shape[1:3]))

    def cls_tokens(self, images: Tensor, num_blocks: int = 1, average_patches: bool = False) -> Tensor:
        """The feature that evaluation takes: the pooled last stage.

        Args:
            images: [B, 3, H, W], normalised.
            num_blocks: must be 1: the stages before the last differ in width.
            average_patches: must be False: the feature is the average of the tokens already.

        Returns:
            [B, D].

        Raises:
            ValueError: for other values of the options.
        """
        if num_blocks != 1 or average_patches:
            raise ValueError(
                f"num_blocks = {num_blocks}, average_patches = {average_patches}: {self.arch} has one feature an "
                "image, the average of its last-stage tokens; choose num_blocks=1 and average_patches=False"
            )
        return self.forward(images).cls_token
