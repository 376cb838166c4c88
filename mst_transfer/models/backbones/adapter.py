"""Base of the adapters of ViT and Swin: arguments, initial weights, frozen parts, quick products on the CPU."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mst_transfer.checkpoint import load_backbone
from mst_transfer.devices.onednn_products import quick_products, recomputed

OUT_NORMS = ("all", "last", "none")


class TimmAdapter(BaseModule):
    """A timm model as a backbone of mmdet and mmseg; see its subclasses for the arguments.

    Attributes:
        vit: timm's model.
    """

    vit: Any
    frozen_stages = -1
    _unused: tuple[str, ...] = ()  # paths that the adapter has removed, which a checkpoint may still hold
    _wanted_interpolation: str | None = None

    def __init__(
        self,
        checkpoint: str | None,
        init_cfg: dict | None,
        role: str | None,
        out_norm: str,
        with_cp: bool,
        may_miss: Sequence[str],
    ) -> None:
        super().__init__()
        if out_norm not in OUT_NORMS:
            raise ValueError(f"out_norm={out_norm!r} is not one of {OUT_NORMS}")
        self.checkpoint = _merge_checkpoints(checkpoint, init_cfg)
        self.role, self.with_cp, self.may_miss = role, with_cp, tuple(may_miss)

    def _maps(self, image: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _modules_to_freeze(self) -> list[nn.Module]:
        """What ``frozen_stages``, at least 0, freezes."""
        raise NotImplementedError

    def _set_interpolation(self, interpolation: str) -> None:
        """Takes a way to resample position embeddings; Swin has none."""

    def _freeze(self, frozen_stages: int | str, num_stages: int) -> None:
        """Freezes the first stages (blocks of a ViT); ``all`` is ``num_stages``.

        Raises:
            ValueError: it is neither ``all`` nor in -1 … ``num_stages``.
        """
        stages = num_stages if frozen_stages == "all" else frozen_stages
        if not isinstance(stages, int) or not -1 <= stages <= num_stages:
            raise ValueError(f"frozen_stages={frozen_stages!r} is not in -1 … {num_stages}, nor 'all'")
        self.frozen_stages = stages
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        return self._modules_to_freeze() if self.frozen_stages >= 0 else []

    def train(self, mode: bool = True) -> "TimmAdapter":
        """Sets the mode; what is frozen stays in evaluation mode (no stochastic depth)."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def init_weights(self) -> None:
        """Loads the checkpoint and reports what it covered; warns if there is none.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is of another architecture, or does not cover the backbone.
        """
        self._is_init = True
        if self.checkpoint is None:
            text = f"{type(self).__name__}: random initialisation (checkpoint=None)"
            print_log(text, logger="current", level=logging.WARNING)
            return
        report = load_backbone(
            self.vit,
            self.checkpoint,
            role=self.role,
            may_miss=self.may_miss,
            unused=self._unused,
            pos_embed_interpolation=self._wanted_interpolation,
        )
        print_log(report.table(), logger="current", level=logging.WARNING if report.remark else logging.INFO)
        self._set_interpolation(report.pos_embed_interpolation)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps of an image [B, C, H, W], one for each of ``out_indices``, finest first."""
        with quick_products(image.device):
            return self._maps(image)

    def _run(self, block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Runs a block; with ``with_cp`` its activations are computed again in the backward pass."""
        return recomputed(block, x) if self.with_cp and torch.is_grad_enabled() else block(x)


def _merge_checkpoints(checkpoint: str | None, init_cfg: dict | None) -> str | None:
    """The path in ``checkpoint`` or in a ``Pretrained`` ``init_cfg``: both go through the checked loader."""
    if init_cfg is None:
        return checkpoint
    if init_cfg.get("type") != "Pretrained" or set(init_cfg) != {"type", "checkpoint"}:
        raise ValueError(f"init_cfg={init_cfg} is not dict(type='Pretrained', checkpoint=PATH)")
    if checkpoint is not None:
        raise ValueError(f"both checkpoint={checkpoint!r} and init_cfg={init_cfg} are given; keep one")
    return str(init_cfg["checkpoint"])


def check_indices(given: Sequence[int] | None, count: int, name: str) -> tuple[int, ...]:
    """Numbers of blocks or stages from 0, of which -1 is the last; of None four evenly spaced ones up to the last.

    Raises:
        ValueError: they do not increase within 0 … ``count`` - 1, or four can't be evenly spaced.
    """
    if given is None:
        if count < 4:
            raise ValueError(f"depth={count}: give {name}; four blocks cannot be evenly spaced")
        return tuple(round(count * quarter / 4) - 1 for quarter in range(1, 5))
    indices = tuple(index + count if index < 0 else index for index in given)
    if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < count:
        raise ValueError(f"{name}={tuple(given)} must increase within 0 … {count - 1}")
    return indices
