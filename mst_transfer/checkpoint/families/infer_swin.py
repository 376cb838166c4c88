"""Which architecture of timm a Swin checkpoint is of, from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.checkpoint.families.swin import TABLE, depths_of, square_window

_VARIANTS = {
    "swin_tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
_LARGE_WINDOWS = ("swin_base", "swin_large")  # which timm has with window 12 too


def infer_swin(tensors: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]]:
    """An architecture name of timm, and the overrides with which it has a checkpoint's shapes.

    Args:
        tensors: of the backbone, under timm's names.
        source: the file's name, for messages.

    Returns:
        E.g. ``("swin_base_patch4_window7_224", {"window_size": 6, "img_size": 192})``. ``img_size`` is the smallest
        whose maps hold their stage's window: that of all published models.

    Raises:
        BackboneRefusedError: if the shapes are of no Swin of timm.
    """
    width, channels, patch = _patch_embed(tensors, source)
    depths, stages = depths_of(list(tensors)), _stages(tensors, source)
    heads, windows = tuple(heads for heads, _ in stages), tuple(window for _, window in stages)
    if len(depths) != len(stages) or 0 in depths:
        raise BackboneRefusedError(f"{source} lacks blocks of a stage (blocks of the stages: {depths}); copy it again")
    shape = (width, depths, heads)
    variant = next((name for name, known in _VARIANTS.items() if known == shape), "swin_tiny")
    twelve = set(windows) == {12} and variant in _LARGE_WINDOWS
    arch, default_window, default_size = f"{variant}_patch4_window7_224", 7, 224
    if twelve:
        arch, default_window, default_size = f"{variant}_patch4_window12_384", 12, 384
    kwargs: dict[str, Any] = {}
    for name, value, default in zip(("embed_dim", "depths", "num_heads"), shape, _VARIANTS[variant], strict=True):
        if value != default:
            kwargs[name] = value
    if set(windows) != {default_window}:
        kwargs["window_size"] = windows[0] if len(set(windows)) == 1 else windows
    img_size = max(window * patch * 2**stage for stage, window in enumerate(windows))
    options = {"img_size": (img_size, default_size), "patch_size": (patch, 4), "in_chans": (channels, 3)}
    kwargs |= {name: value for name, (value, default) in options.items() if value != default}
    return arch, kwargs | _block_options(tensors, width, heads[0])


def _patch_embed(tensors: Mapping[str, Tensor], source: str) -> tuple[int, int, int]:
    """Width, input channels and patch."""
    projection = tensors.get("patch_embed.proj.weight")
    if projection is None or projection.ndim != 4 or projection.shape[2] != projection.shape[3]:
        raise BackboneRefusedError(f"{source} has no patch_embed.proj.weight [C, channels, p, p]: copy it again")
    return projection.shape[0], projection.shape[1], projection.shape[2]


def _stages(tensors: Mapping[str, Tensor], source: str) -> list[tuple[int, int]]:
    """Heads and window of every stage."""
    stages: list[tuple[int, int]] = []
    while (name := f"layers.{len(stages)}.blocks.0.attn.{TABLE}") in tensors:
        stages.append((tensors[name].shape[1], square_window(tensors[name], f"{source}: {name}")[0]))
    return stages


def _block_options(tensors: Mapping[str, Tensor], width: int, heads: int) -> dict[str, Any]:
    """What differs from timm's defaults within a block: MLP ratio, width of a head, bias of the projection."""
    block, options = "layers.0.blocks.0", dict[str, Any]()
    hidden, projected = tensors[f"{block}.mlp.fc1.weight"].shape[0], tensors[f"{block}.attn.qkv.weight"].shape[0]
    if hidden != 4 * width:
        options["mlp_ratio"] = hidden / width
    if projected != 3 * width:
        options["head_dim"] = projected // (3 * heads)
    if f"{block}.attn.qkv.bias" not in tensors:
        options["qkv_bias"] = False
    return options
