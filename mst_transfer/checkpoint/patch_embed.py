"""Patch embeddings of another patch size or number of channels.

Sizes as in FlexiViT (Beyer et al., 2023, eq. 5): the pseudo-inverse of bicubic resizing, so that a resized patch gives
nearly the embedding of the original. Channels as timm does: one channel takes the sum of the kernel's, more than three
repeat it, scaled by 3 / channels; from a single channel each of C channels takes 1 / C, so that a grey image gives the
same embedding. All as one tensor [D, channels, rows, columns].
"""

from collections.abc import Sequence

from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneRefusedError


def fit_patch_embed(weight: Tensor, shape: Sequence[int], source: str) -> tuple[Tensor, str]:
    """Fits a checkpoint's projection [D, channels, rows, columns] to the shape of the model's; D may not differ.

    Returns:
        The weight, and what was done, e.g. ``8x8 -> 16x16``; empty if nothing.

    Raises:
        BackboneRefusedError: if the channels are neither 1 nor 3 and differ.
    """
    changes = []
    if weight.shape[1] != shape[1]:
        changes.append(f"{weight.shape[1]} -> {shape[1]} channels")
        if weight.shape[1] == 1:
            weight = weight.expand(-1, shape[1], -1, -1) / shape[1]
        elif weight.shape[1] == 3:
            weight = adapt_input_conv(shape[1], weight)
        else:
            raise BackboneRefusedError(
                f"{source}: patch_embed.proj.weight takes {weight.shape[1]} channels, the model {shape[1]}; only 1 or "
                f"3 can be adapted to another number. Build the model with in_chans={weight.shape[1]}"
            )
    if weight.shape[2:] != tuple(shape[2:]):
        changes.append(f"{weight.shape[2]}x{weight.shape[3]} -> {shape[2]}x{shape[3]}")
        weight = resample_patch_embed(weight, list(shape[2:]))
    return weight, ", ".join(changes)
