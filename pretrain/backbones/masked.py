"""What the backbones of pre-training share: a timm model and a [MASK] embedding, blocks compiled or recomputed."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mst_transfer.devices.compiler import can_compile
from mst_transfer.devices.onednn_products import recomputed
from mst_transfer.probes.attention import token_grid, token_side
from mst_transfer.probes.backbones import create_backbone


class BackboneOutput(NamedTuple):
    """What one pass gives; None for what was not asked for."""

    cls_token: Tensor  # [B, D], after the final norm
    patch_tokens: Tensor | None  # [B, h, w, D], after the final norm
    # float32 [B, N], attention of the class token over the patches, averaged over heads, in the last block (MST,
    # section 3.2)
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


class MaskedBackbone(nn.Module):
    """A timm model whose patch embeddings can be replaced by a learnable [MASK] embedding.

    Args:
        arch: timm architecture name.
        img_size: side of the global views, in pixels; other sizes are accepted too.
        with_mask_token: whether the [MASK] embedding exists.
        drop_path_rate: stochastic depth, rising linearly over the blocks.
        grad_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile_blocks: let ``torch.compile`` fuse the blocks in training steps: one graph for each size of views, each
            compiled in the first step. None: on a GPU if Triton and a C compiler are found, and not with
            ``grad_checkpointing``. On the CPU it needs a C++ compiler.
        **timm_kwargs: overrides of the architecture, e.g. ``patch_size=8, embed_dim=128, depth=6, num_heads=4``.

    Attributes:
        vit: timm's model; it bears this name in every backbone.
        mask_token: of the patch embeddings' width, or None.
    """

    def __init__(
        self,
        arch: str,
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
        self.vit: Any = create_backbone(arch, drop_path_rate=drop_path_rate, **self.arch_kwargs)
        self.vit.requires_grad_(True)
        self.grad_checkpointing = grad_checkpointing
        self._blocks = compiled(type(self)._through_blocks, compile_blocks, grad_checkpointing)
        self.mask_token: nn.Parameter | None = None
        if with_mask_token:
            self.mask_token = nn.Parameter(torch.zeros(self.vit.patch_embed.proj.out_channels))
            nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def embed_dim(self) -> int:
        """Width D of the feature that stands for the image."""
        return self.vit.num_features

    @property
    def patch_size(self) -> int:
        return self.vit.patch_embed.patch_size[0]

    @property
    def cell_size(self) -> int:
        """Side in pixels of what a mask hides as one: a ViT's patch, a last-stage token of a Swin."""
        return token_side(self.vit)

    def num_patches(self, height: int, width: int) -> int:
        """Cells of an image of that size, in pixels; a ValueError if it is not one of whole cells."""
        rows, columns = token_grid(self.vit, height, width)
        return rows * columns

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
            images: [B, 3, H, W], normalised; of a Swin, H and W are multiples of ``cell_size``.
            mask: bool [B, N], True where the embeddings of a cell are replaced by [MASK] before the first block and
                *before* the position embedding is added; they stay in their place.
            patch_tokens: also return the last block's tokens.
            importance: also return the attention over them.
            in_step: whether this is a step of training, where compiled blocks may be used.
        """
        x, grid = self._embed(images, mask)
        x, row = self._blocks(x, in_step)(self, x, patch_tokens, importance)
        return self._output(x, row if importance else None, grid if patch_tokens else None)

    def _embed(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        """What enters the blocks, and rows and columns of cells."""
        raise NotImplementedError

    def _through_blocks(self, x: Tensor, patch_tokens: bool, importance: bool) -> tuple[Tensor, Tensor | None]:
        """What enters the blocks → normalised tokens of the last, and the row of attention over them."""
        raise NotImplementedError

    def _output(self, x: Tensor, row: Tensor | None, grid: tuple[int, int] | None) -> BackboneOutput:
        """Of tokens and row; without a grid there are no patch tokens."""
        raise NotImplementedError

    def _run(self, block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """One block; with gradient checkpointing the backward pass recomputes what is in it."""
        return recomputed(block, x) if self.grad_checkpointing and torch.is_grad_enabled() else block(x)
