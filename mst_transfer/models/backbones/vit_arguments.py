"""Arguments of the ViT adapters: which blocks give outputs, which have windows, where the weights are."""

from __future__ import annotations

from collections.abc import Sequence

from mst_transfer.models.backbones.vit_create import ViT
from mst_transfer.models.backbones.vit_pass import WINDOW_BLOCKS

WINDOW_PREFIXES = ("drop", "global")


def check_windows(
    window_size: int, global_blocks: Sequence[int] | None, window_prefix: str, vit: ViT
) -> tuple[int, ...]:
    """Blocks with global attention; checks the other arguments about windows.

    Args:
        window_size, global_blocks, window_prefix: of the adapter.
        vit: with the blocks that are kept: those without windows are counted among them.

    Raises:
        ValueError: names the argument, its value and what is allowed.
    """
    if window_prefix not in WINDOW_PREFIXES:
        raise ValueError(f"window_prefix={window_prefix!r} is not one of {WINDOW_PREFIXES}")
    if window_size < 0:
        raise ValueError(f"window_size={window_size} must be 0 (no windows) or a number of tokens, e.g. 14")
    if window_size == 0:
        if global_blocks is not None:
            raise ValueError(f"global_blocks={tuple(global_blocks)} has no effect with window_size=0; leave it out")
        return ()
    kinds = sorted({type(block).__name__ for block in vit.blocks if type(block) not in WINDOW_BLOCKS})
    if kinds:
        allowed = ", ".join(sorted(f"{block.__module__}.{block.__name__}" for block in WINDOW_BLOCKS))
        raise ValueError(f"window_size={window_size} is not supported for blocks of {kinds}, only of {allowed}")
    depth = len(vit.blocks)
    if global_blocks is None:
        return _evenly_spaced(depth, "global_blocks")
    return _check_indices(global_blocks, depth, "global_blocks") if global_blocks else ()


def _evenly_spaced(depth: int, name: str) -> tuple[int, ...]:
    if depth < 4:
        raise ValueError(f"depth={depth}: give {name}; four blocks cannot be evenly spaced")
    return tuple(round(depth * quarter / 4) - 1 for quarter in range(1, 5))


def check_out_indices(out_indices: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Block numbers from 0; by default four evenly spaced ones that end with the last block."""
    if out_indices is None:
        return _evenly_spaced(depth, "out_indices")
    return _check_indices(out_indices, depth, "out_indices")


def check_frozen_stages(frozen_stages: int | str, num_stages: int) -> int:
    """The number of frozen stages (blocks of a ViT); ``all`` is ``num_stages``.

    Raises:
        ValueError: it is neither ``all`` nor in -1 … ``num_stages``.
    """
    if frozen_stages == "all":
        return num_stages
    if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= num_stages:
        raise ValueError(f"frozen_stages={frozen_stages!r} is not in -1 … {num_stages}, nor 'all'")
    return frozen_stages


def _check_indices(given: Sequence[int], depth: int, name: str) -> tuple[int, ...]:
    indices = tuple(index + depth if index < 0 else index for index in given)
    if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < depth:
        raise ValueError(f"{name}={tuple(given)} must increase within 0 … {depth - 1}")
    return indices


def merge_checkpoints(checkpoint: str | None, init_cfg: dict | None) -> str | None:
    """The path in ``checkpoint`` or in a ``Pretrained`` ``init_cfg``: both go through the checked loader."""
    if init_cfg is None:
        return checkpoint
    if init_cfg.get("type") != "Pretrained" or set(init_cfg) != {"type", "checkpoint"}:
        raise ValueError(f"init_cfg={init_cfg} is not dict(type='Pretrained', checkpoint=PATH)")
    if checkpoint is not None:
        raise ValueError(f"both checkpoint={checkpoint!r} and init_cfg={init_cfg} are given; keep one")
    return str(init_cfg["checkpoint"])
