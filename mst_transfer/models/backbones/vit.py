"""timm's Vision Transformers, of any architecture name, as backbones of mmdet and mmseg.

``TimmViT`` returns token grids (for SETR, UPerNet), ``TimmViTPyramid`` maps at strides 4 to 32 (for
FPN). Attention is timm's, which uses PyTorch's fused kernels. An image whose sides are not multiples of the
patch is padded with zeros on the right and at the bottom, like the batches of mmdet and mmseg.

What the chosen outputs do not need is removed from the model (head, blocks behind the last output, the final
norm if unused), so that distributed training finds no parameter without a gradient.

Shapes: image [B, C, H, W], p patch side, D embedding width, token grid [B, D, ceil(H / p), ceil(W / p)].
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mst_transfer.checkpoint.pos_embed import (
    MARK,
    PREFIXES,
    add_pos_embed,
    check_interpolation,
    mark_interpolation,
    prefix_tokens,
)
from mst_transfer.models.backbones.adapter import TimmAdapter, check_indices
from mst_transfer.models.backbones.vit_create import create_vit, read_architecture
from mst_transfer.models.backbones.vit_pass import ViTPass, check_windows
from mst_transfer.models.necks import STRIDES, TokenPyramid
from mst_transfer.registry import MODELS


@MODELS.register_module()
class TimmViT(TimmAdapter):
    """A timm ViT that returns the token grids of some of its blocks.

    Args:
        arch: a name of ``timm.list_models()`` that builds a ``VisionTransformer``, ``Eva`` or ``Beit``:
            ``vit_small_patch16_224``, ``vit_small_patch16_dinov3``, …. None: what the checkpoint was made with.
        img_size: image size (side, or height and width) of the position embeddings; they are resampled to it
            once when weights are loaded, and in every forward pass to the size of the batch if that differs.
            None: the architecture's own.
        out_indices: blocks whose output is returned, from 0, or from the end: -1 is the last; increasing. Blocks behind
            them are removed. None: four evenly spaced ones.
        checkpoint: path of backbone weights (``mst_transfer.checkpoint``); None: random initialisation.
        role: ``teacher`` or ``student``, where the file holds both; None: the only one that the file names.
        out_norm: which outputs pass the final LayerNorm: ``all``, ``last`` (the last block's only), ``none``.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        frozen_stages: -1 trains everything, 0 freezes the embeddings (and tables or rotations that all blocks share),
            k also the first k blocks, ``all`` every block and the last norm.
        with_cp: recompute activations in the backward pass to save memory.
        pos_embed_interpolation: ``timm`` or ``dino`` (``mst_transfer.checkpoint.pos_embed``), for loading and for
            the forward pass. None: what the checkpoint was trained with, as far as it says so, else ``timm``.
        window_size: side in tokens of the windows within which attention works; 0: everywhere. With windows the class
            and register tokens are removed, as in ViTDet.
        global_blocks: blocks without windows among those that are kept, from 0, or from the end. None: four evenly
            spaced ones that end with the last one kept.
        may_miss: names (or paths such as ``norm``) that the checkpoint may lack.
        init_cfg: only ``dict(type='Pretrained', checkpoint=PATH)``: the same as ``checkpoint=PATH``.
        **timm_kwargs: overrides for ``timm.create_model``: ``patch_size=8, in_chans=1``, ….

    Raises:
        ValueError: if an argument is not one of the values above.
    """

    def __init__(
        self,
        arch: str | None = None,
        img_size: int | Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        checkpoint: str | None = None,
        role: str | None = "teacher",
        out_norm: str = "all",
        drop_path_rate: float = 0.0,
        frozen_stages: int | str = -1,
        with_cp: bool = False,
        pos_embed_interpolation: str | None = None,
        window_size: int = 0,
        global_blocks: Sequence[int] | None = None,
        may_miss: Sequence[str] = (),
        init_cfg: dict | None = None,
        **timm_kwargs: Any,
    ) -> None:
        super().__init__(checkpoint, init_cfg, role, out_norm, with_cp, may_miss)
        if img_size is not None:
            timm_kwargs["img_size"] = img_size if isinstance(img_size, int) else tuple(img_size)
        if arch is None:
            arch, own_kwargs = read_architecture(self.checkpoint, role)
            timm_kwargs = own_kwargs | timm_kwargs
        self.vit = create_vit(arch, drop_path_rate=drop_path_rate, **timm_kwargs)
        depth = len(self.vit.blocks)
        self.out_indices = check_indices(out_indices, depth, "out_indices")
        self.out_norm = "none" if out_norm == "last" and self.out_indices[-1] != depth - 1 else out_norm
        if self.out_norm != "none" and isinstance(self.vit.norm, nn.Identity):
            raise ValueError(f"out_norm={out_norm!r}: arch={arch!r} has no final norm; pass out_norm='none'")
        self._unused = self._prune(depth, drop_prefix=window_size > 0)
        self.window_size = window_size
        self.global_blocks = check_windows(window_size, global_blocks, self.vit)
        self.num_prefix = sum(token.shape[1] for token in prefix_tokens(self.vit))
        for block in self.vit.blocks:  # with RoPE, of which the prefix is not rotated
            if hasattr(getattr(block, "attn", None), "num_prefix_tokens"):
                block.attn.num_prefix_tokens = self.num_prefix
        self._wanted_interpolation = pos_embed_interpolation
        self._set_interpolation(pos_embed_interpolation or "timm")
        self._freeze(frozen_stages, len(self.vit.blocks))

    @property
    def embed_dim(self) -> int:
        """Width D of the tokens."""
        return int(self.vit.embed_dim)

    @property
    def patch_size(self) -> int:
        """Side p of a patch in pixels."""
        return int(self.vit.patch_embed.patch_size[0])

    @property
    def size_divisor(self) -> int:
        """Every map covers an image exactly whose sides in pixels are multiples of it."""
        return self.patch_size

    def _set_interpolation(self, interpolation: str) -> None:
        check_interpolation(interpolation)
        self.pos_embed_interpolation = interpolation
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

    def _prune(self, depth: int, drop_prefix: bool) -> tuple[str, ...]:
        """Removes what no output needs; returns the removed paths, which a checkpoint may still hold."""
        kept = self.out_indices[-1] + 1
        unused = [f"blocks.{index}" for index in range(kept, depth)]
        if self.out_norm == "none":
            unused.append("norm")
        self.vit.prune_intermediate_layers([kept - 1], prune_norm=self.out_norm == "none", prune_head=True)
        if drop_prefix:
            dropped = [name for name in PREFIXES if getattr(self.vit, name, None) is not None]
            for name in dropped:
                setattr(self.vit, name, None)
            unused += dropped
        return tuple(unused)

    def _modules_to_freeze(self) -> list[nn.Module]:
        """What stands before the blocks or serves all of them, and the first blocks."""
        names = ("patch_embed", "pos_drop", "norm_pre", "rope", "rel_pos_bias")
        shared = [module for name in names if (module := getattr(self.vit, name, None)) is not None]
        last = [self.vit.norm] if self.frozen_stages == len(self.vit.blocks) else []
        return [*shared, *self.vit.blocks[: self.frozen_stages], *last]

    def _freeze(self, frozen_stages: int | str, num_stages: int) -> None:
        super()._freeze(frozen_stages, num_stages)
        if self.frozen_stages >= 0:
            for parameter in (self.vit.pos_embed, *prefix_tokens(self.vit)):
                if parameter is not None:
                    parameter.requires_grad_(False)

    def _maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """Token grids [B, D, ceil(H / p), ceil(W / p)] of the blocks in ``out_indices``."""
        grid = self.vit.patch_embed.dynamic_feat_size(image.shape[-2:])
        patches = self.vit.patch_embed(image).reshape(len(image), -1, self.embed_dim)
        tokens = add_pos_embed(self.vit, patches, grid, self.pos_embed_interpolation)
        tokens = getattr(self.vit, "norm_pre", nn.Identity())(tokens)
        forward_pass = ViTPass(self.vit, grid, len(image), self.num_prefix, self.window_size, self.global_blocks)
        tokens = forward_pass.order(tokens)
        grids = []
        for index in range(len(self.vit.blocks)):
            tokens = self._run(partial(forward_pass.run, index), tokens)
            if index in self.out_indices:
                patches = forward_pass.patches(tokens)
                if self.out_norm == "all" or (self.out_norm == "last" and index == self.out_indices[-1]):
                    patches = self.vit.norm(patches)
                grids.append(patches.transpose(1, 2).unflatten(2, grid).contiguous())
        return tuple(grids)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Where a parameter stands between image and head, for layer-wise learning rate decay.

        Args:
            param_name: full name, e.g. ``backbone.vit.blocks.3.attn.qkv.weight``.
            prefix: what stands before this module's own names, e.g. ``backbone.``.

        Returns:
            Layer (0 embeddings, 1 … n blocks, n + 1 everything behind them, and BEiT's shared table of relative
            positions, as in BEiT's own recipe) and number of layers (n + 2).
        """
        num_layers = len(self.vit.blocks) + 2
        parts = param_name.removeprefix(prefix).split(".")
        if parts[0] != "vit" or parts[1] in ("norm", "rel_pos_bias"):
            return num_layers - 1, num_layers
        return (int(parts[2]) + 1 if parts[1] == "blocks" else 0), num_layers

    def no_weight_decay(self) -> set[str]:
        """Names, within this module, of parameters that weight decay must leave alone: tokens, positions, rotations."""
        undecayed = {*self.vit.no_weight_decay(), *PREFIXES, "pos_embed"}
        names = (name for name, _ in self.vit.named_parameters())
        return {f"vit.{name}" for name in names if name in undecayed or name.endswith("relative_position_bias_table")}


@MODELS.register_module()
class TimmViTPyramid(TimmViT):
    """A timm ViT that returns four maps at strides 4, 8, 16 and 32, each of width D, for mmdet's FPN.

    Four blocks, evenly spaced unless ``out_indices`` says otherwise, give the maps from finest to coarsest;
    see ``mst_transfer.models.necks.TokenPyramid`` for the resizing and for patches other than 16.

    Args: as for ``TimmViT``.
    """

    def __init__(self, arch: str | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(arch, *args, **kwargs)
        if len(self.out_indices) != len(STRIDES):
            raise ValueError(f"out_indices={self.out_indices} must name {len(STRIDES)} blocks")
        self.pyramid = TokenPyramid(self.embed_dim, self.patch_size)

    @property
    def size_divisor(self) -> int:
        """Every map covers an image exactly whose sides in pixels are multiples of it, whatever the patch."""
        return STRIDES[-1]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps [B, D, ceil(H / s), ceil(W / s)] for s = 4, 8, 16, 32."""
        return self.pyramid(super().forward(image), (image.shape[-2], image.shape[-1]))
