"""timm's Vision Transformers, of any architecture name, as backbones of mmdet and mmseg.

:class:`TimmViT` returns token grids (for SETR, UPerNet), :class:`TimmViTPyramid` maps at strides 4 to 32 (for
FPN). Attention is timm's, which uses PyTorch's fused kernels. An image whose sides are not multiples of the
patch is padded with zeros on the right and at the bottom, like the batches of mmdet and mmseg.

What the chosen outputs do not need is removed from the model (head, blocks behind the last output, the final
norm if unused), so that distributed training finds no parameter without a gradient.

Shapes: image [B, 3, H, W], p patch side, D embedding width, token grid [B, D, ceil(H / p), ceil(W / p)].
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from typing import Any

import timm
from mmengine.logging import print_log
from mmengine.model import BaseModule
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mst_transfer.checkpoint import load_backbone
from mst_transfer.checkpoint.pos_embed import (
    MARK,
    mark_interpolation,
    use_pos_embed_interpolation,
)
from mst_transfer.models.necks.pyramid import STRIDES, TokenPyramid
from mst_transfer.registry import MODELS

OUT_NORMS = ("all", "last", "none")


@MODELS.register_module()
class TimmViT(BaseModule):
    """A timm ViT that returns the token grids of some of its blocks.

    Args:
        arch: a name of ``timm.list_models()`` that builds a ``VisionTransformer``:
            ``vit_small_patch16_224``, ….
        img_size: image size (side, or height and width) of the position embeddings; they are resampled to it
            once when weights are loaded, and in every forward pass to the size of the batch if that differs.
            None: the architecture's own.
        out_indices: blocks whose output is returned, from 0, increasing. None: four evenly spaced ones.
        checkpoint: path of backbone weights (:mod:`mst_transfer.checkpoint`); None: random initialisation.
        role: ``teacher`` or ``student``, where the file holds both.
        out_norm: which outputs pass the final LayerNorm: ``all``, ``last`` (the last block's only), ``none``.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        frozen_stages: -1 trains everything, 0 freezes the embeddings, k also the first k blocks.
        with_cp: recompute activations in the backward pass to save memory.
        pos_embed_interpolation: ``timm`` or ``dino`` (:mod:`mst_transfer.checkpoint.pos_embed`), for loading and for
            the forward pass. None: what the checkpoint was trained with, as far as it says so, else ``timm``.
        init_cfg: only ``dict(type='Pretrained', checkpoint=PATH)``: the same as ``checkpoint=PATH``.
        **timm_kwargs: overrides for ``timm.create_model``: ``patch_size=8, depth=6``, ….

    Raises:
        ValueError: if an argument is not one of the values above.
    """

    def __init__(
        self,
        arch: str,
        img_size: int | Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        checkpoint: str | None = None,
        role: str = "teacher",
        out_norm: str = "all",
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        pos_embed_interpolation: str | None = None,
        init_cfg: dict | None = None,
        **timm_kwargs: Any,
    ) -> None:
        super().__init__()
        if out_norm not in OUT_NORMS:
            raise ValueError(f"out_norm={out_norm!r} is not one of {OUT_NORMS}")
        self.checkpoint = _merge_checkpoints(checkpoint, init_cfg)
        self.role = role
        if img_size is not None:
            timm_kwargs["img_size"] = img_size if isinstance(img_size, int) else tuple(img_size)
        self.vit = _create_vit(arch, drop_path_rate=drop_path_rate, **timm_kwargs)
        depth = len(self.vit.blocks)
        self.out_indices = _check_out_indices(out_indices, depth)
        self.out_norm = "none" if out_norm == "last" and self.out_indices[-1] != depth - 1 else out_norm
        self._unused = self._prune(depth)
        if not -1 <= frozen_stages <= len(self.vit.blocks):
            raise ValueError(f"frozen_stages={frozen_stages} is not in -1 … {len(self.vit.blocks)}")
        self.frozen_stages = frozen_stages
        self.vit.set_grad_checkpointing(with_cp)
        self._wanted_interpolation = pos_embed_interpolation
        self._set_interpolation(pos_embed_interpolation or "timm")
        self._freeze()

    @property
    def embed_dim(self) -> int:
        """Width D of the tokens."""
        return int(self.vit.embed_dim)

    @property
    def patch_size(self) -> int:
        """Side p of a patch in pixels."""
        return int(self.vit.patch_embed.patch_size[0])

    def _set_interpolation(self, interpolation: str) -> None:
        use_pos_embed_interpolation(self.vit, interpolation)
        mark_interpolation(self, interpolation)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Follows the mark of a whole model's checkpoint, so that testing resamples as training did."""
        mark = prefix + MARK
        if self._wanted_interpolation is None and f"{prefix}vit.pos_embed" in state_dict:
            self._set_interpolation("dino" if mark in state_dict else "timm")
        elif hasattr(self, MARK):
            state_dict.setdefault(mark, getattr(self, MARK))
        else:
            state_dict.pop(mark, None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _prune(self, depth: int) -> tuple[str, ...]:
        """Removes what no output needs; returns the removed paths, which a checkpoint may still hold."""
        kept = self.out_indices[-1] + 1
        unused = [f"blocks.{index}" for index in range(kept, depth)]
        if self.out_norm == "none":
            unused.append("norm")
        self.vit.prune_intermediate_layers([kept - 1], prune_norm=self.out_norm == "none", prune_head=True)
        return tuple(unused)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.vit.patch_embed, self.vit.norm_pre, *self.vit.blocks[: self.frozen_stages]]

    def _freeze(self) -> None:
        if self.frozen_stages >= 0:
            for parameter in (self.vit.pos_embed, self.vit.cls_token, self.vit.reg_token):
                if parameter is not None:
                    parameter.requires_grad_(False)
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> TimmViT:
        """Sets the mode; frozen blocks stay in evaluation mode (no stochastic depth)."""
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
        if self.checkpoint is None:
            print_log(
                f"{type(self).__name__}: random initialisation (checkpoint=None)",
                logger="current",
                level=logging.WARNING,
            )
        else:
            report = load_backbone(
                self.vit,
                self.checkpoint,
                role=self.role,
                unused=self._unused,
                pos_embed_interpolation=self._wanted_interpolation,
            )
            self._set_interpolation(report.pos_embed_interpolation)
            level = logging.WARNING if report.remark else logging.INFO
            print_log(report.table(), logger="current", level=level)
        self._is_init = True

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Token grids [B, D, ceil(H / p), ceil(W / p)] of the blocks in ``out_indices``."""
        grids = self.vit.forward_intermediates(
            image, indices=list(self.out_indices), norm=self.out_norm == "all", intermediates_only=True
        )
        if self.out_norm == "last":
            grids[-1] = self.vit.norm(grids[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return tuple(grids)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Where a parameter stands between image and head, for layer-wise learning rate decay.

        Args:
            param_name: full name, e.g. ``backbone.vit.blocks.3.attn.qkv.weight``.
            prefix: what stands before this module's own names, e.g. ``backbone.``.

        Returns:
            Layer (0 embeddings, 1 … n blocks, n + 1 everything behind them) and number of layers (n + 2).
        """
        num_layers = len(self.vit.blocks) + 2
        parts = param_name.removeprefix(prefix).split(".")
        if parts[0] != "vit":
            return num_layers - 1, num_layers
        if parts[1] == "blocks":
            return int(parts[2]) + 1, num_layers
        return (num_layers - 1 if parts[1] == "norm" else 0), num_layers

    def no_weight_decay(self) -> set[str]:
        """Names, within this module, of parameters that weight decay must leave alone."""
        return {f"vit.{name}" for name in self.vit.no_weight_decay()}


@MODELS.register_module()
class TimmViTPyramid(TimmViT):
    """A timm ViT that returns four maps at strides 4, 8, 16 and 32, each of width D, for mmdet's FPN.

    Four blocks, evenly spaced unless ``out_indices`` says otherwise, give the maps from finest to coarsest;
    see :mod:`mst_transfer.models.necks.pyramid` for the resizing and for patches other than 16.

    Args: as for :class:`TimmViT`.
    """

    def __init__(self, arch: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(arch, *args, **kwargs)
        if len(self.out_indices) != len(STRIDES):
            raise ValueError(f"out_indices={self.out_indices} must name {len(STRIDES)} blocks")
        self.pyramid = TokenPyramid(self.embed_dim, self.patch_size)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps [B, D, ceil(H / s), ceil(W / s)] for s = 4, 8, 16, 32."""
        return self.pyramid(super().forward(image), (image.shape[-2], image.shape[-1]))


def _create_vit(arch: str, **timm_kwargs: Any) -> VisionTransformer:
    """A randomly initialised timm ViT that takes images of any size."""
    known = timm.list_models()
    if arch.split(".")[0] not in known:
        near = difflib.get_close_matches(arch, known, n=4, cutoff=0.4)
        raise ValueError(f"arch={arch!r} is not a timm model; near names: {', '.join(near) or 'none'}")
    if timm_kwargs.get("patch_drop_rate"):
        raise ValueError(
            f"patch_drop_rate={timm_kwargs['patch_drop_rate']} leaves out tokens, so no grid is left for a head to "
            "read; leave it at 0, and use drop_path_rate to regularise"
        )
    if not timm_kwargs.get("dynamic_img_size", True):
        raise ValueError(
            "dynamic_img_size=False would allow images of img_size only, but mmdet and mmseg pad each batch to a size "
            "of its own; leave it out"
        )
    options = dict(num_classes=0, dynamic_img_size=True, dynamic_img_pad=True) | timm_kwargs
    try:
        vit = timm.create_model(arch, pretrained=False, **options)
    except TypeError as error:
        raise ValueError(f"arch={arch!r} does not take all of {sorted(options)}: {error}") from error
    if not isinstance(vit, VisionTransformer):
        raise ValueError(f"arch={arch!r} is a {type(vit).__name__}; TimmViT takes timm's VisionTransformer only")
    height, width = vit.patch_embed.patch_size
    if height != width:
        raise ValueError(f"arch={arch!r} has patches of {height}x{width} pixels; only square ones are supported")
    return vit


def _check_out_indices(out_indices: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Block numbers from 0; by default four evenly spaced ones that end with the last block."""
    if out_indices is None:
        if depth < 4:
            raise ValueError(f"depth={depth}: give out_indices; four blocks cannot be evenly spaced")
        return tuple(round(depth * quarter / 4) - 1 for quarter in range(1, 5))
    indices = tuple(index + depth if index < 0 else index for index in out_indices)
    if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < depth:
        raise ValueError(f"out_indices={tuple(out_indices)} must increase within 0 … {depth - 1}")
    return indices


def _merge_checkpoints(checkpoint: str | None, init_cfg: dict | None) -> str | None:
    """The path in ``checkpoint`` or in a ``Pretrained`` ``init_cfg``: both go through the checked loader."""
    if init_cfg is None:
        return checkpoint
    if init_cfg.get("type") != "Pretrained" or set(init_cfg) != {"type", "checkpoint"}:
        raise ValueError(f"init_cfg={init_cfg} is not dict(type='Pretrained', checkpoint=PATH)")
    if checkpoint is not None:
        raise ValueError(f"both checkpoint={checkpoint!r} and init_cfg={init_cfg} are given; keep one")
    return str(init_cfg["checkpoint"])
