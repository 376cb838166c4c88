"""Backbones as torch modules that can be exported as graphs: tensors in, tensors out, no branches on sizes.

Shapes: image [B, 3, H, W], p patch side, h = H / p and w = W / p, P prefix tokens, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mst_transfer.checkpoint.pos_embed import prefix_tokens

CUBIC = -0.75  # coefficient of torch's cubic without smoothing


class Normalised(nn.Module):
    """Bytes to normalised floats, then a model.

    Args:
        model: takes normalised images.
        mean: RGB, on a scale of 0 to 1.
        std: likewise.
    """

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(1, 3, 1, 1)))
        self.register_buffer("shift", -torch.tensor(mean).view(1, 3, 1, 1) / torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Any:
        """uint8 image [B, 3, H, W] → what the model returns."""
        return self.model(image.float() * self.scale + self.shift)


class AnySizeViT(nn.Module):
    """A timm ``VisionTransformer`` whose position embeddings follow the image in the graph itself.

    Args:
        vit: the model.
        interpolation: ``timm`` or ``dino`` (:mod:`mst_transfer.checkpoint.pos_embed`).
    """

    def __init__(self, vit: nn.Module, interpolation: str) -> None:
        super().__init__()
        self.vit: Any = vit
        self.interpolation = interpolation

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image → class token [B, D] (without one the mean of the patches), patch tokens [B, h w, D]."""
        vit = self.vit
        patches = vit.patch_embed.norm(vit.patch_embed.proj(image).flatten(2).transpose(1, 2))
        h, w = image.shape[2] // vit.patch_embed.patch_size[0], image.shape[3] // vit.patch_embed.patch_size[1]
        prefix = prefix_tokens(vit, image.shape[0])
        if vit.pos_embed is None:
            tokens = torch.cat([*prefix, patches], dim=1)
        else:
            num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
            fixed, grid = vit.pos_embed[:, :num_prefix], vit.pos_embed[:, num_prefix:]
            grid = self._resample(grid.unflatten(1, tuple(vit.patch_embed.grid_size)), h, w)
            if vit.no_embed_class:
                tokens = torch.cat([*prefix, patches + grid], dim=1)
            else:
                tokens = torch.cat([*prefix, patches], dim=1) + torch.cat([fixed, grid], dim=1)
        tokens = vit.norm(vit.blocks(vit.norm_pre(tokens)))
        patch_tokens = tokens[:, vit.num_prefix_tokens :]
        return (tokens[:, 0] if vit.cls_token is not None else patch_tokens.mean(1)), patch_tokens

    def _resample(self, grid: Tensor, h: Any, w: Any) -> Tensor:
        """[1, rows, columns, D] → [1, h w, D]."""
        if self.interpolation == "timm":
            resized = nn.functional.interpolate(
                grid.permute(0, 3, 1, 2), size=(h, w), mode="bicubic", antialias=True, align_corners=False
            )
            return resized.flatten(2).transpose(1, 2)
        rows, columns = dino_weights((h, w), grid.shape[1:3])
        return torch.einsum("hr,brcd,wc->bhwd", rows, grid, columns).flatten(1, 2)


def dino_weights(new: Sequence[Any], old: Sequence[int]) -> tuple[Tensor, Tensor]:
    """DINO's resampling as two matrices, [new rows, old rows] and [new columns, old columns].

    Bicubic at a scale of (new + 0.1) / old on both sides; identities where both sides are as they were, since DINO
    leaves the embeddings alone then.

    Args:
        new: rows and columns after; may be symbolic.
        old: rows and columns before.
    """
    targets = [torch.arange(side) for side in new]
    same = torch.ones(())
    for target, side in zip(targets, old, strict=True):
        same = same * (torch.ones_like(target).sum() == side)  # not a comparison of sizes: the graph is for all of them
    matrices = []
    for target, after, before in zip(targets, new, old, strict=True):
        identity = (torch.arange(before)[None] == target[:, None]).float()
        matrices.append(same * identity + (1 - same) * _cubic_weights(target, before, before / (after + 0.1)))
    return matrices[0], matrices[1]


def _cubic_weights(target: Tensor, old: int, step: Any) -> Tensor:
    """Weights [new, old] of four neighbours each, those beyond the border counted for the cell at the border."""
    centre = (target + 0.5) * step - 0.5
    weights = torch.zeros(target.shape[0], old)
    for tap in range(-1, 3):
        cell = centre.floor() + tap
        distance = (centre - cell).abs()
        near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
        far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
        hit = torch.arange(old)[None] == cell.clamp(0, old - 1).long()[:, None]
        weights = weights + hit * torch.where(distance <= 1, near, far)[:, None]
    return weights


class Tokens(nn.Module):
    """Any timm model with tokens, at one size: class token [B, D] and patch tokens [B, h w, D]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        for module in model.modules():  # the exporter cannot take fused attention with a bias apart
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010 - known to some of timm's modules only

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image → class token (without one the mean of the patches), patch tokens."""
        tokens = self.model.forward_features(image)
        patch_tokens = tokens[:, self.model.num_prefix_tokens :]
        has_class = getattr(self.model, "cls_token", None) is not None
        return (tokens[:, 0] if has_class else patch_tokens.mean(1)), patch_tokens


class Map(nn.Module):
    """A timm Swin at one size: mean over the map [B, C] and the map [B, C, h, w]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image → pooled, map."""
        feature_map = self.model.forward_features(image).permute(0, 3, 1, 2)
        return feature_map.mean((2, 3)), feature_map
