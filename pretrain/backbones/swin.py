"""timm's Swin Transformer with masked patch embeddings and the attention of its pooled feature.

Swin has no class token. The average of its last-stage tokens takes its place, for the head and for the importance,
and what a mask hides as one, a *cell*, is what becomes one last-stage token: 32 x 32 px, 8 x 8 patches of 4 px. [ours]

Legend: B images, N = h * w last-stage tokens (cells), D their width, H heads of the last stage, d = D / H, C width of
the patch embeddings.
"""

from functools import partial

import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor

from mst_transfer.devices.window_attention import attend_in_windows
from mst_transfer.probes.attention import pooled_attention, token_grid
from pretrain.backbones.masked import BackboneOutput, MaskedBackbone


def swin_block(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """timm's block [B, h, w, C] → the same; on CUDA its attention is one kernel where no window needs padding."""
    if not x.is_cuda or any(side % extent for side, extent in zip(x.shape[1:3], block.window_size, strict=True)):
        return block(x)
    x = x + block.drop_path1(attend_in_windows(block.attn, block.norm1(x), block.shift_size))
    return x + block.drop_path2(block.mlp(block.norm2(x)))


class MaskedSwin(MaskedBackbone):
    """A timm Swin Transformer; a mask hides the patch embeddings of whole cells.

    Images of any multiple of ``cell_size`` are accepted and give what timm gives for them with
    ``strict_img_size=False``: windows and shifts stay those of ``img_size``, and a stage whose grid is no multiple of
    its window is padded with zeros at the bottom and on the right. timm pads *after* the cyclic shift, so that in a
    padded grid some of the first rows and columns, which the shift has moved to the end, are not masked from the last.

    A stage whose whole grid of ``img_size`` is not larger than the window gets a window of the grid's size and no
    shift, as in timm.
    """

    vit: SwinTransformer

    def _embed(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        """What enters the blocks: [B, H / p, W / p, C], with [MASK] in the hidden cells; and the grid of cells."""
        grid = token_grid(self.vit, *images.shape[-2:])
        x = self.vit.patch_embed(images).float()  # what blocks add to stays in float32, under autocast too
        if mask is not None:
            assert self.mask_token is not None and mask.shape == (len(images), grid[0] * grid[1])
            scale = self.cell_size // self.patch_size
            hidden = mask.view(-1, *grid).repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
            x = torch.where(hidden[..., None], self.mask_token.to(x.dtype), x)
        return x, grid

    def _through_blocks(self, x: Tensor, patch_tokens: bool, importance: bool) -> tuple[Tensor, Tensor | None]:
        """Patch embeddings → normalised last-stage tokens [B, h, w, D], and the pooled feature's row [B, H, N]."""
        last, row = self.vit.layers[-1].blocks[-1], None
        for stage in self.vit.layers:
            x = stage.downsample(x)
            for block in stage.blocks:
                if importance and block is last:
                    row = pooled_attention(block, x)
                x = self._run(partial(swin_block, block), x)
        return self.vit.norm(x.float()), row

    def _output(self, x: Tensor, row: Tensor | None, grid: tuple[int, int] | None) -> BackboneOutput:
        """The average of the normalised last-stage tokens stands for ``cls_token``, they for ``patch_tokens``."""
        tokens = None if grid is None else x  # [B, h, w, D]
        return BackboneOutput(x.mean(dim=(1, 2)), tokens, None if row is None else row.mean(dim=1))
