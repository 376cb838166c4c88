"""timm's Swin Transformer with masked patch embeddings and the attention of its pooled feature.

Swin has no class token. The average of its last-stage tokens takes its place, for the head and for the importance,
and what a mask hides as one, a *cell*, is what becomes one last-stage token: 32 x 32 px, 8 x 8 patches of 4 px. [ours]

Legend: B images, N = h * w last-stage tokens (cells), D their width, H heads of the last stage, d = D / H, C width of
the patch embeddings.
"""

from functools import partial

import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mst_transfer.devices.onednn_products import quick_recomputation
from mst_transfer.devices.window_attention import attend_in_windows
from mst_transfer.probes.attention import pooled_attention, token_grid, token_side
from mst_transfer.probes.backbones import create_backbone
from pretrain.backbones.vit import BackboneOutput, compiled


def swin_block(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """timm's block [B, h, w, C] → the same; on CUDA its attention is one kernel where no window needs padding."""
    if not x.is_cuda or any(side % extent for side, extent in zip(x.shape[1:3], block.window_size, strict=True)):
        return block(x)
    x = x + block.drop_path1(attend_in_windows(block.attn, block.norm1(x), block.shift_size))
    return x + block.drop_path2(block.mlp(block.norm2(x)))


class MaskedSwin(nn.Module):
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
        compile_blocks: let ``torch.compile`` fuse the stages, as in ``MaskedViT``.
        **timm_kwargs: overrides of the architecture, e.g. ``embed_dim=24, depths=(1, 1, 2, 1)``.

    Attributes:
        vit: timm's model; it bears this name in every backbone.
        mask_token: [C], or None.
    """

    def __init__(
        self,
        arch: str = "swin_tiny_patch4_window7_224",
        img_size: int = 224,
        with_mask_token: bool = True,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        compile_blocks: bool | None = None,
        **timm_kwargs,
    ) -> None:
        super().__init__()
        self.arch = arch
        self.arch_kwargs = {"img_size": img_size, **timm_kwargs}
        self.vit: SwinTransformer = create_backbone(arch, drop_path_rate=drop_path_rate, **self.arch_kwargs)
        self.vit.requires_grad_(True)
        self.grad_checkpointing = grad_checkpointing
        self._through_stages = compiled(type(self)._tokens, compile_blocks, grad_checkpointing)
        self.mask_token: nn.Parameter | None = None
        if with_mask_token:
            self.mask_token = nn.Parameter(torch.zeros(self.vit.patch_embed.proj.out_channels))
            nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def embed_dim(self) -> int:
        """Width D of the pooled feature."""
        return self.vit.num_features

    @property
    def patch_size(self) -> int:
        return self.vit.patch_embed.patch_size[0]

    @property
    def cell_size(self) -> int:
        """Side in pixels of what a mask hides as one: a last-stage token."""
        return token_side(self.vit)

    def num_patches(self, height: int, width: int) -> int:
        """Cells of an image of that size, in pixels; a ValueError if it is not one of whole cells."""
        rows, columns = token_grid(self.vit, height, width)
        return rows * columns

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """What enters the blocks: [B, H / p, W / p, C], with [MASK] in the hidden cells."""
        height, width = images.shape[-2:]
        num_cells = self.num_patches(height, width)
        x = self.vit.patch_embed(images).float()  # what blocks add to stays in float32, under autocast too
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
                    run = partial(swin_block, block)
                    x = checkpoint(run, x, use_reentrant=False, context_fn=partial(quick_recomputation, x.device))
                else:
                    x = swin_block(block, x)
        return self.vit.norm(x.float()), row

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
            images: [B, 3, H, W], normalised; H and W multiples of ``cell_size``.
            mask: bool [B, N], True where the embeddings of a cell's patches are replaced by [MASK] before the first
                block; they stay in their place.
            patch_tokens: also return the last-stage tokens [B, h, w, D].
            importance: also return the pooled feature's attention over the last-stage tokens, averaged over heads.
            in_step: whether this is a step of training, where compiled blocks may be used.

        Returns:
            The average of the normalised last-stage tokens stands for ``cls_token``.
        """
        x = self._embed(images, mask)
        tokens, row = self._through_stages(x, in_step)(self, x, importance)
        return BackboneOutput(
            cls_token=tokens.mean(dim=(1, 2)),
            patch_tokens=tokens if patch_tokens else None,
            importance=None if row is None else row.mean(dim=1),
        )
