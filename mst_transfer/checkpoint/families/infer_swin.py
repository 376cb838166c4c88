"""Names the timm architecture of a Swin checkpoint, from the shapes of its tensors."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.checkpoint.families.swin import TABLE, depths_of, square_window
from mst_transfer.checkpoint.metadata import skeleton

_VARIANTS = {  # width, blocks and heads of the stages
    "swin_tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
_LARGE_WINDOWS = ("swin_base", "swin_large")  # which timm has with window 12 too


def infer_swin(tensors: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]]:
    """An architecture name of timm, and the overrides with which it has the shapes of tensors under timm's names.

    Returns:
        E.g. ``("swin_base_patch4_window7_224", {"window_size": 6, "img_size": 192})``. ``img_size`` is the smallest
        whose maps hold their stage's window: that of all published models.

    Raises:
        BackboneRefusedError: if the shapes are of no Swin of timm.
    """
    options = _options(tensors, source)
    shape = {name: options[name] for name in ("embed_dim", "depths", "num_heads")}
    variant = next((name for name, known in _VARIANTS.items() if known == tuple(shape.values())), "swin_tiny")
    large = options["window_size"] == 12 and variant in _LARGE_WINDOWS
    arch = f"{variant}_patch4_window{'12_384' if large else '7_224'}"
    own = _options(skeleton(arch).state_dict(), arch)
    return arch, {name: value for name, value in options.items() if own[name] != value}


def _options(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Options of timm's class. They are read off an architecture's own tensors too, to see where a file differs."""
    projection, block = tensors.get("patch_embed.proj.weight"), "layers.0.blocks.0"
    if projection is None or projection.ndim != 4 or projection.shape[2] != projection.shape[3]:
        raise BackboneRefusedError(f"{source} has no patch_embed.proj.weight [C, channels, p, p]: copy it again")
    width, channels, patch, _ = projection.shape
    depths, stages = depths_of(list(tensors)), _stages(tensors, source)
    if len(depths) != len(stages) or 0 in depths:
        raise BackboneRefusedError(f"{source} lacks blocks of a stage (blocks of the stages: {depths}); copy it again")
    heads, windows = tuple(heads for heads, _ in stages), tuple(window for _, window in stages)
    hidden, projected = tensors[f"{block}.mlp.fc1.weight"].shape[0], tensors[f"{block}.attn.qkv.weight"].shape[0]
    return {
        "embed_dim": width,
        "depths": depths,
        "num_heads": heads,
        "window_size": windows[0] if len(set(windows)) == 1 else windows,
        "img_size": max(window * patch * 2**stage for stage, window in enumerate(windows)),
        "patch_size": patch,
        "in_chans": channels,
        "mlp_ratio": hidden / width,
        "head_dim": None if projected == 3 * width else projected // (3 * heads[0]),
        "qkv_bias": f"{block}.attn.qkv.bias" in tensors,
    }


def _stages(tensors: Mapping[str, Tensor], source: str) -> list[tuple[int, int]]:
    """Heads and window of every stage."""
    stages: list[tuple[int, int]] = []
    while (name := f"layers.{len(stages)}.blocks.0.attn.{TABLE}") in tensors:
        stages.append((tensors[name].shape[1], square_window(tensors[name], f"{source}: {name}")[0]))
    return stages
