"""Maps over an image's tokens as pictures: attention in colours, principal components of patch tokens as RGB.

Attention is drawn token by token, not smoothed: what a picture shows is what the network has.
"""

from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mst_transfer.probes.attention import token_side
from mst_transfer.probes.backbones import FrozenBackbone
from mst_transfer.probes.features import patch_tokens

COLOURS = "inferno"


def heat_map(attention: np.ndarray, height: int, width: int) -> np.ndarray:
    """Attention [h, w] in colours, RGB uint8 [height, width, 3].

    The scale runs from the lowest value to the 99th percentile, so that a single patch does not darken the rest.
    """
    low, high = attention.min(), np.quantile(attention, 0.99)
    scaled = ((attention - low) / max(high - low, np.finfo(np.float32).tiny)).clip(0, 1)
    colours = matplotlib.colormaps[COLOURS](scaled)[..., :3]
    return cv2.resize((colours * 255).round().astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)


def overlay(photo: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Attention [h, w] in colours over a photo [H, W, 3], of which the lightness remains: float RGB [H, W, 3]."""
    heat = heat_map(attention, *photo.shape[:2]) / 255.0
    grey = (photo @ [0.299, 0.587, 0.114])[..., None]
    return np.clip(0.3 * grey + 0.75 * heat, 0, 1)


def pca_maps(tokens: Sequence[Tensor]) -> list[NDArray[np.uint8]]:
    """Shows the first three principal components of patch tokens as red, green and blue, over all images together.

    Tokens [h, w, D] of each image, D ≥ 3; the grids may differ → RGB [h, w, 3]. A component runs from 0 at its lowest
    to 255 at its highest over all images; its largest entry is positive, so that colours do not hang on the solver.
    """
    flat = torch.cat([image.flatten(0, 1) for image in tokens]).double()
    flat = flat - flat.mean(dim=0)
    axes = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -3:].flip(1)  # [D, 3], the largest variance first
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    shares = flat @ axes
    shares = shares - shares.amin(dim=0)
    colours = (shares / shares.amax(dim=0).clamp(min=1e-12) * 255).round().byte()
    parts = colours.split([image.shape[0] * image.shape[1] for image in tokens])
    return [part.view(*image.shape[:2], 3).cpu().numpy() for part, image in zip(parts, tokens, strict=True)]


@torch.no_grad()
def photo_maps(backbone: FrozenBackbone, photos: Sequence[NDArray[np.uint8]], side: int = 480) -> dict[str, list]:
    """Draws attention, averaged over heads, and principal components of patch tokens of photos [H, W, 3].

    Under "attention" and "components": RGB uint8 [h, w, 3] of each photo, whose longest side is about ``side`` pixels
    at most: both sides become multiples of a token's.
    """
    token, attention, tokens = token_side(backbone.model), [], []
    for photo in photos:
        scale = min(1.0, side / max(photo.shape[:2]))
        height, width = (max(round(length * scale / token), 1) * token for length in photo.shape[:2])
        seen = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        views = torch.from_numpy(seen).permute(2, 0, 1)[None]
        attended = backbone.attention(views)[0].mean(dim=0).cpu().numpy()
        attention.append((overlay(seen / 255.0, attended) * 255).round().astype(np.uint8))
        tokens.append(patch_tokens(backbone.model, backbone.normalise(views))[0].float())
    components = [
        cv2.resize(small, shown.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        for small, shown in zip(pca_maps(tokens), attention, strict=True)
    ]
    return {"attention": attention, "components": components}
