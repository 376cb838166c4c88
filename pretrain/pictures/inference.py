"""Runs a trained network on photographs: attention, mask and restored views, as arrays."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from mst_transfer.files.image_folder import read_image
from mst_transfer.probes.attention import attention_maps
from mst_transfer.probes.backbones import FrozenBackbone
from pretrain.losses import restoring_loss
from pretrain.model import MST


@dataclass(frozen=True)
class Views:
    """Photographs and what the network makes of them; all arrays are float in [0, 1] unless noted."""

    photos: np.ndarray  # RGB [B, H, W, 3]
    # [B, heads, h, w], attention in the last block over the patches of a ViT or the last-stage tokens of a Swin; a
    # head's sums to at most 1 an image
    heads: np.ndarray
    mask: np.ndarray | None = None  # bool [B, h, w], True where hidden from the student; None without masking
    restored: np.ndarray | None = None  # RGB [B, H, W, 3], or None without a decoder
    # mean absolute, in normalised units: of the restored views, and of each view's mean colour
    error: tuple[float, float] | None = None

    @property
    def importance(self) -> np.ndarray:
        """[B, h, w], the average over heads."""
        return self.heads.mean(axis=1)


def read_crop(path: str, height: int, width: int) -> np.ndarray:
    """The largest central part of an image that has the proportions asked for, resized.

    Returns:
        RGB uint8 [height, width, 3].

    Raises:
        UnreadableImageError: the file is not a readable image.
    """
    image = read_image(path)
    scale = min(image.shape[0] / height, image.shape[1] / width)
    rows, columns = max(round(height * scale), 1), max(round(width * scale), 1)
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    part = np.ascontiguousarray(image[top : top + rows, left : left + columns])
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)


@torch.no_grad()
def run_model(model: MST, images: np.ndarray) -> Views:
    """Runs teacher, mask, student and decoder of a whole model on uint8 images [B, H, W, 3], without augmentation."""
    views = model.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    heads = attention_maps(model.teacher.backbone.vit, views)  # [B, heads, h, w]
    importance, grid = heads.mean(dim=1).flatten(1), heads.shape[-2:]
    generator, view = model.mask_generator, model.mask_generator.views[0]  # one that is masked in training
    mask = generator(importance.repeat(2, 1), torch.arange(len(images)), 0, 2, importance.shape[1])
    mask = None if mask is None else mask.unflatten(0, (2, -1))[view]
    restored = error = None
    if model.decoder is not None:
        tokens = model.student.backbone(views, mask=mask, patch_tokens=True).patch_tokens
        output = model.decoder(tokens)
        flat = views.mean(dim=(2, 3), keepdim=True).expand_as(views)
        error = (restoring_loss(output, views).item(), restoring_loss(flat, views).item())
        restored = ((output * model.std + model.mean) / 255).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return Views(
        photos=images / 255.0,
        heads=heads.numpy(),
        mask=None if mask is None else mask.reshape(-1, *grid).numpy(),
        restored=restored,
        error=error,
    )


@torch.no_grad()
def run_backbone(frozen: FrozenBackbone, images: np.ndarray) -> Views:
    """Runs a backbone alone on uint8 images [B, H, W, 3]: attention, and nothing else."""
    heads = frozen.attention(torch.from_numpy(images).permute(0, 3, 1, 2))
    return Views(photos=images / 255.0, heads=heads.cpu().numpy())
