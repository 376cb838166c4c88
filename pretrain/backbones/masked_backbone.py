"""What ViT and Swin have in common: timm's model, the [MASK] embedding, and the grid of what a mask hides."""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn


class BackboneOutput(NamedTuple):
    """The result of one pass.

    Attributes:
        cls_token: [B, D], after the final norm.
        patch_tokens: [B, h, w, D], after the final norm, or None when not asked for.
        importance: float32 [B, N], attention of the class token over the patches, averaged over heads, in the last
            block (MST, section 3.2), or None when not asked for.
    """

    cls_token: Tensor
    patch_tokens: Tensor | None
    importance: Tensor | None


def check_arch(arch: str) -> None:
    """Refuses a name that timm does not know.

    Raises:
        ValueError: names the nearest ones.
    """
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(["vit*", "deit*", "swin_*"]), n=3)
        hint = f"nearest: {', '.join(near)}" if near else "list them with timm.list_models(['vit*', 'swin_*'])"
        raise ValueError(f"backbone.arch = {arch!r} is not an architecture of timm {timm.__version__}; {hint}")
    try:
        get_pretrained_cfg(arch)
    except RuntimeError as error:
        raise ValueError(f"backbone.arch = {arch!r}: {error} Names with a tag: timm.list_pretrained()") from error


def compiled(function: Callable[..., Any], wanted: bool, grad_checkpointing: bool) -> Callable[..., Any]:
    """Compiles a function by ``torch.compile`` if wanted: one graph for each shape, compiled at its first call.

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


class MaskedBackbone(nn.Module):
    """A timm model whose patch embeddings can be replaced by a learnable [MASK] embedding.

    Args:
        arch: timm architecture name.
        arch_kwargs: overrides of the architecture, which belong to its description.
        **create: arguments of ``timm.create_model`` that do not.

    Attributes:
        vit: timm's model; it bears this name in every backbone.
        mask_token: as wide as a patch embedding, or None.
    """

    needed: str  # what can be pre-trained, in words
    cell: str  # what the sides of an image must be multiples of, in words
    vit: Any

    def __init__(self, arch: str, arch_kwargs: dict[str, Any], **create: Any) -> None:
        super().__init__()
        check_arch(arch)
        self.arch, self.arch_kwargs = arch, arch_kwargs
        try:
            self.vit = timm.create_model(arch, pretrained=False, num_classes=0, **create, **arch_kwargs)
        except TypeError as error:
            raise ValueError(
                f"backbone: timm's {arch!r} does not take these arguments ({error}); this backbone needs {self.needed}"
            ) from error
        self.check_supported()
        self.vit.requires_grad_(True)
        self.mask_token: nn.Parameter | None = None

    def check_supported(self) -> None:
        """Refuses models of timm's without what pre-training needs."""
        raise NotImplementedError

    def add_mask_token(self) -> None:
        """Makes the [MASK] embedding; the last of the parameters that are drawn."""
        self.mask_token = nn.Parameter(torch.zeros(self.vit.patch_embed.proj.out_channels))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def patch_size(self) -> int:
        return self.vit.patch_embed.patch_size[0]

    @property
    def cell_size(self) -> int:
        """Side in pixels of what a mask hides as one."""
        raise NotImplementedError

    def num_patches(self, height: int, width: int) -> int:
        """Counts the cells of an image of that size, in pixels.

        Raises:
            ValueError: a side is no multiple of theirs.
        """
        size = self.cell_size
        for side in (height, width):
            if side % size:
                low = side // size * size
                raise ValueError(
                    f"view of {height}x{width} px is not a multiple of {self.cell.format(size=size)}: choose a size "
                    f"such as {max(low, size)} or {low + size}"
                )
        return (height // size) * (width // size)
