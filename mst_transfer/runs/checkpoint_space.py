"""How much space a run's checkpoints will take, found out before its first step."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_transfer.files.atomic_files import free_space, readable_size
from mst_transfer.files.checksums import content_size

# Tensors of the size of a parameter that an optimizer keeps for it
STATES = {"Adam": 2, "AdamW": 2, "NAdam": 2, "RAdam": 2, "Adamax": 2, "SGD": 1, "RMSprop": 1, "Adagrad": 1, "Lion": 1}


class TooLittleSpaceError(RuntimeError):
    """Not even one checkpoint would fit; raised before the first step."""


@dataclass(frozen=True)
class SpacePlan:
    """Sizes in bytes.

    Attributes:
        checkpoint: of one checkpoint, with the optimizer's state if that is saved.
        weights: of one file of weights alone.
        peak: of all that stands side by side at the worst moment, when a new file is written before an old one goes.
    """

    checkpoint: int
    weights: int
    peak: int


def plan_space(
    model: Any, optimizers: list[Any], kept: int, best: int, save_optimizer: bool = True, extra: int = 0
) -> SpacePlan:
    """The space that checkpoints will take.

    Args:
        model: whose ``state_dict`` is saved.
        optimizers: of torch.
        kept: number of checkpoints in the end.
        best: number of ``best_*.pth`` files.
        save_optimizer: whether checkpoints hold the optimizers' states.
        extra: bytes of further files with each checkpoint.
    """
    weights = content_size(model.state_dict())
    states = sum(optimizer_bytes(one) for one in optimizers) if save_optimizer else 0
    checkpoint = weights + states + extra
    return SpacePlan(checkpoint, weights, checkpoint * (kept + 1) + weights * (2 * best))


def optimizer_bytes(optimizer: Any) -> int:
    """Bytes of the state that an optimizer will have after its first step, as far as its kind is known."""
    states = next((STATES[kind.__name__] for kind in type(optimizer).__mro__ if kind.__name__ in STATES), 2)
    total = 0
    for group in optimizer.param_groups:
        number = states if group.get("momentum", 1) or states > 1 else 0
        number += bool(group.get("amsgrad", False))
        total += sum(parameter.nbytes for parameter in group["params"] if parameter.requires_grad) * number
    return total


def check_space(folder: str | os.PathLike, plan: SpacePlan, present: int = 0) -> str | None:
    """A warning if the folder's disk will be full before the run ends; None if the space suffices or is unknown.

    Args:
        folder: of the checkpoints.
        plan: their sizes.
        present: bytes of the checkpoints that are there already and will be replaced.

    Raises:
        TooLittleSpaceError: Not even one checkpoint fits.
    """
    free = free_space(folder)
    if free is None:
        return None
    size = f"a checkpoint takes about {readable_size(plan.checkpoint)}, {readable_size(free)} are free in {folder}"
    if free < plan.checkpoint:
        raise TooLittleSpaceError(
            f"{size}: not even one can be written. Next step: make space, or name a --work-dir on another disk"
        )
    if free + present < plan.peak:
        return (
            f"{size}, and the whole run needs about {readable_size(plan.peak)}: it will stop when the disk is full. "
            "Make space, keep fewer (default_hooks.checkpoint.max_keep_ckpts=1), or name a --work-dir on another disk"
        )
    return None


def size_of_checkpoints(folder: str | os.PathLike) -> int:
    """Bytes of all ``.pth`` files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).glob("*.pth") if path.is_file())
