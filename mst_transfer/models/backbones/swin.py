"""timm's Swin Transformers, of any architecture name, as backbones of mmdet and mmseg.

Maps of the stages at strides 4, 8, 16 and 32 for FPN, UPerNet and the like, for images of any size: on the same
weights they equal mmdet's and mmseg's ``SwinTransformer``. A map whose sides are no multiples of the window is padded
with zeros on the right and at the bottom, *before* the cyclic shift, as there and in the detection code of Swin's
authors. timm pads after it, which leaves some pairs of distant tokens unmasked. A padded token takes part as a key (its
value is the projection's bias), as there.

A pre-trained Swin has one norm, behind its last stage. It stays the norm of that stage's output; the norms of the
other outputs (``vit.norm0`` …) are fresh unless the checkpoint is of a detector or segmentor that had them, and the
load report lists them as missing.

Shapes: image [B, 3, H, W], stage i from 0, p patch side (4), map [B, C * 2^i, ceil(H / (p * 2^i)), …].
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torch.nn.functional as F
from timm.models import is_model_in_modules
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn

from mst_transfer.checkpoint.metadata import check_known
from mst_transfer.devices.window_attention import attend_in_windows
from mst_transfer.models.backbones.adapter import TimmAdapter, check_indices
from mst_transfer.registry import MODELS


@MODELS.register_module()
class TimmSwin(TimmAdapter):
    """A timm Swin Transformer that returns the maps of some of its stages.

    Args: those that are not here as for ``TimmViT``.
        arch: a name of ``timm.list_models('swin_*')``: ``swin_tiny_patch4_window7_224``, ….
        out_indices: stages whose output is returned, from 0, increasing; stages behind the last are removed.
        out_norm: which outputs pass a LayerNorm: ``all`` as in mmdet, ``last`` (the last stage's only, which is the
            checkpoint's own), ``none``.
        window_size: side of the windows, one number or one a stage. None: the architecture's. Tables of relative
            position biases are resampled to it when weights are loaded.
        shift_single_windows: whether a map that one window covers is shifted nonetheless. True as mmdet and mmseg do;
            False as in pre-training, so that at 224 px the last map equals timm's.
        frozen_stages: -1 trains everything, 0 freezes the patch embedding, k also the first k stages with their norms
            and the patch merging behind each, as mmdet does, ``all`` every stage.
        may_miss: names or module paths, within ``vit``, that the checkpoint may lack besides the fresh norms.
        **timm_kwargs: overrides for ``timm.create_model``: ``embed_dim=48, depths=(2, 2, 2, 2), in_chans=1``, ….

    Raises:
        ValueError: if an argument is not one of the values above.
    """

    def __init__(
        self,
        arch: str = "swin_tiny_patch4_window7_224",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        checkpoint: str | None = None,
        role: str = "teacher",
        out_norm: str = "all",
        window_size: int | Sequence[int] | None = None,
        shift_single_windows: bool = True,
        drop_path_rate: float = 0.0,
        frozen_stages: int | str = -1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
        may_miss: Sequence[str] = (),
        **timm_kwargs: Any,
    ) -> None:
        super().__init__(checkpoint, init_cfg, role, out_norm, with_cp, may_miss)
        self.shift_single_windows = shift_single_windows
        if window_size is not None:
            timm_kwargs["window_size"] = window_size if isinstance(window_size, int) else tuple(window_size)
        self.vit = _create_swin(arch, drop_path_rate=drop_path_rate, **timm_kwargs)
        self.out_indices = check_indices(out_indices, len(self.vit.layers), "out_indices")
        self._unused = self._prune(out_norm)
        if out_norm == "all":
            self.may_miss += self._add_norms()
        self._freeze(frozen_stages, len(self.vit.layers))

    @property
    def num_features(self) -> tuple[int, ...]:
        """Channels of the outputs, e.g. for FPN's ``in_channels``."""
        return tuple(self.vit.feature_info[index]["num_chs"] for index in self.out_indices)

    @property
    def size_divisor(self) -> int:
        """Every map covers an image exactly whose sides in pixels are multiples of it."""
        return int(self.vit.patch_embed.patch_size[0]) << self.out_indices[-1]

    def _prune(self, out_norm: str) -> tuple[str, ...]:
        """Removes what no output needs; returns the removed paths, which a checkpoint may still hold."""
        kept, stages = self.out_indices[-1] + 1, self.vit.layers
        unused = [f"layers.{index}.downsample" for index in range(kept, len(stages))]
        for index in range(kept, len(stages)):
            unused += [f"layers.{index}.blocks.{block}" for block in range(len(stages[index].blocks))]
        if out_norm == "none" or kept < len(stages):
            self.vit.norm = nn.Identity()
            unused.append("norm")
        unused += [f"norm{index}" for index in range(len(stages))]  # of detectors; those that are there are loaded
        self.vit.layers = stages[:kept]
        self.vit.head = nn.Identity()
        return tuple(unused)

    def _add_norms(self) -> tuple[str, ...]:
        """Norms of the outputs that have none of their own in a pre-trained Swin; their names."""
        names = []
        for index in self.out_indices:
            if index == len(self.vit.layers) - 1 and isinstance(self.vit.norm, nn.LayerNorm):
                continue
            names.append(f"norm{index}")
            self.vit.add_module(names[-1], nn.LayerNorm(self.vit.feature_info[index]["num_chs"]))
        return tuple(names)

    def _norm(self, index: int) -> nn.Module:
        """What the output of a stage passes."""
        last = index == len(self.vit.layers) - 1 and not isinstance(self.vit.norm, nn.Identity)
        return self.vit.norm if last else getattr(self.vit, f"norm{index}", nn.Identity())

    def _modules_to_freeze(self) -> list[nn.Module]:
        modules, stages = [self.vit.patch_embed], self.vit.layers
        for index in range(self.frozen_stages):
            modules += [stages[index].blocks, self._norm(index)]
            modules += [stage.downsample for stage in stages[index + 1 : index + 2]]
        return modules

    def _maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps of the stages in ``out_indices``, [B, C * 2^i, ceil(H / (p * 2^i)), ceil(W / (p * 2^i))]."""
        x, outputs = self._embed(image), []
        for index, stage in enumerate(self.vit.layers):
            x = stage.downsample(x)
            for block in stage.blocks:
                x = self._run(partial(swin_block, block, shift_single_windows=self.shift_single_windows), x)
            if index in self.out_indices:
                outputs.append(self._norm(index)(x).permute(0, 3, 1, 2).contiguous())
        return tuple(outputs)

    def _embed(self, image: Tensor) -> Tensor:
        """Patch embeddings [B, ceil(H / p), ceil(W / p), C]; sides are padded with zeros to multiples of p."""
        embed = self.vit.patch_embed
        (p, q), (height, width) = embed.patch_size, image.shape[-2:]
        x = F.pad(image, (0, -width % q, 0, -height % p))
        return embed.norm(embed.proj(x).permute(0, 2, 3, 1))

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """As of ``TimmViT``, its n blocks counted through all stages.

        A patch merging belongs to the block before it, as in SimMIM's fine-tuning and in mmpretrain.
        """
        depths = [len(stage.blocks) for stage in self.vit.layers]
        num_layers = sum(depths) + 2
        parts = param_name.removeprefix(prefix).split(".")
        if parts[:2] == ["vit", "patch_embed"]:
            return 0, num_layers
        if parts[:2] != ["vit", "layers"]:
            return num_layers - 1, num_layers
        before = sum(depths[: int(parts[2])])
        return before + (int(parts[4]) + 1 if parts[3] == "blocks" else 0), num_layers

    def no_weight_decay(self) -> set[str]:
        """Names, within this module, of parameters that weight decay must leave alone: tables, norms, biases."""
        names = {name for name, parameter in self.named_parameters() if parameter.ndim == 1}
        return names | {f"vit.{name}" for name in self.vit.no_weight_decay()}


def _create_swin(arch: str, **timm_kwargs: Any) -> SwinTransformer:
    """A randomly initialised timm Swin whose windows do not depend on the image's size."""
    check_known(arch)
    if not is_model_in_modules(arch, {"swin_transformer"}):
        raise ValueError(
            f"arch={arch!r} is no Swin Transformer of version 1, the only one that TimmSwin takes, e.g. "
            "swin_tiny_patch4_window7_224; for a ViT take mst_transfer.TimmViTPyramid"
        )
    fixed: dict[str, Any] = dict(num_classes=0, always_partition=True, strict_img_size=False)
    try:
        swin = timm.create_model(arch, pretrained=False, **fixed, **timm_kwargs)
    except TypeError as error:
        raise ValueError(f"arch={arch!r} does not take all of {sorted(timm_kwargs)}: {error}") from error
    assert isinstance(swin, SwinTransformer)
    return swin


def swin_block(block: SwinTransformerBlock, x: Tensor, shift_single_windows: bool = True) -> Tensor:
    """One Swin block, [B, H, W, C] → [B, H, W, C].

    Args:
        block: timm's, for its weights, its window and its shift; what it knows of the image's size is not used.
        x: the map.
        shift_single_windows: whether a side that one window covers is shifted nonetheless, as in mmdet and mmseg; timm
            and pre-training do not.
    """
    x = x + block.drop_path1(_window_attention(block, block.norm1(x), shift_single_windows))
    return x + block.drop_path2(block.mlp(block.norm2(x)))


def _window_attention(block: SwinTransformerBlock, x: Tensor, shift_single_windows: bool) -> Tensor:
    """Pads, shifts, attends, shifts back, cuts: [B, H, W, C] → [B, H, W, C]."""
    attn, (height, width) = block.attn, x.shape[1:3]
    window = attn.window_size
    shift = tuple(
        0 if side <= extent and not shift_single_windows else step
        for side, extent, step in zip((height, width), window, block.target_shift_size, strict=True)
    )
    below, right = -height % window[0], -width % window[1]
    if below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    return attend_in_windows(attn, x, shift)[:, :height, :width]
