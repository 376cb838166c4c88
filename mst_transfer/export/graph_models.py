"""Backbones as torch modules that can be exported as graphs: tensors in, tensors out, no branches on sizes.

Shapes: image [B, 3, H, W], p patch side, h = H / p and w = W / p, P prefix tokens, D embedding width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from mst_transfer.checkpoint.pos_embed import add_pos_embed

CUBIC = -0.75  # coefficient of torch's cubic without smoothing


class Normalised(nn.Module):
    """Bytes to floats, normalised by a mean and a standard deviation on a scale of 0 to 1, then a model."""

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.mean = nn.Buffer(torch.tensor(mean).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Any:
        """uint8 image [B, 3, H, W] → what the model returns."""
        return self.model((image.float() / 255 - self.mean) / self.std)


def class_and_patches(vit: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B, P + h w, D] → class token [B, D] (without one the mean of the patches), patch tokens [B, h w, D]."""
    patch_tokens = tokens[:, vit.num_prefix_tokens :]
    return (patch_tokens.mean(1) if getattr(vit, "cls_token", None) is None else tokens[:, 0]), patch_tokens


class AnySizeViT(nn.Module):
    """A timm ``VisionTransformer`` whose position embeddings follow the image in the graph, as timm or DINO do."""

    def __init__(self, vit: nn.Module, interpolation: str) -> None:
        super().__init__()
        self.vit: Any = vit
        self.interpolation = interpolation

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image → see ``class_and_patches``."""
        vit = self.vit
        patches = vit.patch_embed.norm(vit.patch_embed.proj(image).flatten(2).transpose(1, 2))
        h, w = image.shape[2] // vit.patch_embed.patch_size[0], image.shape[3] // vit.patch_embed.patch_size[1]

        def resample(pos_embed: Tensor, num_prefix: int) -> Tensor:
            grid = pos_embed[:, num_prefix:].unflatten(1, tuple(vit.patch_embed.grid_size))
            return torch.cat([pos_embed[:, :num_prefix], self._resample(grid, h, w)], dim=1)

        tokens = add_pos_embed(vit, patches, resample)
        return class_and_patches(vit, vit.norm(vit.blocks(vit.norm_pre(tokens))))

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

    Bicubic at a scale of (new + 0.1) / old on both sides; identities where both sides, which may be symbolic, are as
    they were, since DINO leaves the embeddings alone then.
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


class OneSize(nn.Module):
    """Any timm model at one size; a Swin gives the mean over its map [B, C], and the map [B, C, h, w]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        for module in model.modules():  # the exporter cannot take fused attention with a bias apart
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010 - known to some of timm's modules only

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image → see ``class_and_patches``; of a Swin pooled, map."""
        features = self.model.forward_features(image)
        if not isinstance(self.model, SwinTransformer):
            return class_and_patches(self.model, features)
        feature_map = features.permute(0, 3, 1, 2)
        return feature_map.mean((2, 3)), feature_map
