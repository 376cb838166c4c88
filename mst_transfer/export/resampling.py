"""How other libraries resample position embeddings, to compare with them at sizes other than the checkpoint's own.

Shapes: N patches of a grid of h rows and w columns, P prefix tokens, D embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mst_transfer.checkpoint.pos_embed import resample_pos_embed
from mst_transfer.export.original import Original, Resample
from mst_transfer.export.verify import features, image_of, size_in_words


def as_timm(pos_embed: Tensor, new: tuple[int, int], old: tuple[int, int], num_prefix: int) -> Tensor:
    """Bicubic, smoothed before it shrinks (``timm.layers.resample_abs_pos_embed``)."""
    return resample_pos_embed(pos_embed, new, old, num_prefix, "timm")


def plain_bicubic(pos_embed: Tensor, new: tuple[int, int], old: tuple[int, int], num_prefix: int) -> Tensor:
    """Bicubic to the new sides without smoothing, as mmpretrain, detectron2 and transformers' ViT and DINOv2 do."""
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    grid = patches.unflatten(1, old).permute(0, 3, 1, 2)  # [1, D, h, w]
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)


def resampling_remark(original: Original, size: tuple[int, int], resample: Resample, library: str) -> tuple[str, ...]:
    """What to say if a library resamples otherwise than the checkpoint is meant to be; empty if it does not.

    Args:
        original: the backbone.
        size: height and width other than its own.
        resample: the library's way.
        library: its name.
    """
    if "pos_embed" not in original.tensors:
        return ()
    image = image_of(size)
    own, theirs = features(original.model(size), image), features(original.model(size, resample), image)
    difference = float((own - theirs).abs().max())
    if difference <= 1e-5:
        return ()
    return (
        f"at sizes other than {size_in_words(original.metadata.img_size)} {library} resamples position embeddings in "
        f"another way than this checkpoint is used here ({original.metadata.pos_embed_interpolation}): features differ "
        f"by up to {difference:.1e} at {size_in_words(size)}",
    )
