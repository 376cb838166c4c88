"""The shipped full-scale backbones have the published sizes."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from pretrain.backbones import build_backbone

FOLDER = Path(__file__).resolve().parents[2] / "pretrain" / "configs"

# Parameters without a classifier. ViT: DINO's vit_tiny, vit_small and vit_base with num_classes=0 (its paper says 21 M
# and 85 M). Swin: timm's models, whose 28.3 M and 49.6 M with the classifier are the 28 M and 50 M of Swin's paper.
PUBLISHED = {
    "vit_tiny_16": 5_524_416,
    "vit_tiny_8": 5_526_720,
    "vit_small_16": 21_665_664,
    "vit_small_8": 21_670_272,
    "vit_base_16": 85_798_656,
    "vit_base_8": 85_807_872,
    "swin_tiny": 28_288_354 - (768 * 1000 + 1000),
    "swin_small": 49_606_258 - (768 * 1000 + 1000),
}


def vit_parameters(width: int, patch: int, depth: int = 12) -> int:
    """Patch embedding, class token, 224 px position embeddings, blocks (attention, MLP, two norms), last norm."""
    embedding = 3 * patch**2 * width + width + width + (1 + (224 // patch) ** 2) * width
    attention = (width + 1) * 3 * width + (width + 1) * width
    mlp = (width + 1) * 4 * width + (4 * width + 1) * width
    return embedding + depth * (attention + mlp + 4 * width) + 2 * width


def swin_parameters(depths: tuple[int, ...], width: int = 96, heads: int = 3, window: int = 7) -> int:
    """Patch embedding and its norm, stages of doubling width with their position biases, merging, last norm."""
    total = 3 * 4**2 * width + width + 2 * width
    for stage, depth in enumerate(depths):
        dim = width * 2**stage
        if stage:
            total += (4 * dim // 2) * dim + 2 * (4 * dim // 2)  # 2 x 2 tokens of half the width, and their norm
        attention = (dim + 1) * 4 * dim + (2 * window - 1) ** 2 * heads * 2**stage
        total += depth * (attention + (dim + 1) * 4 * dim + (4 * dim + 1) * dim + 4 * dim)
    return total + 2 * dim


@pytest.mark.parametrize("size", PUBLISHED)
def test_number_of_parameters(size: str):
    cfg = Config.fromfile(FOLDER / f"mst_{size}_imagenet_100e.py")
    with torch.device("meta"):
        backbone = build_backbone(**cfg.model.backbone)
    found = sum(parameter.numel() for parameter in backbone.vit.parameters())
    assert found == PUBLISHED[size]
    if size.startswith("vit"):
        _, name, patch = size.split("_")
        assert found == vit_parameters({"tiny": 192, "small": 384, "base": 768}[name], int(patch))
        assert backbone.cell_size == int(patch) and backbone.vit.blocks[0].attn.head_dim == 64
    else:
        assert found == swin_parameters({"swin_tiny": (2, 2, 6, 2), "swin_small": (2, 2, 18, 2)}[size])
        assert (backbone.cell_size, backbone.embed_dim) == (32, 768)


def test_every_full_scale_config_is_counted():
    names = {path.stem.rsplit("_imagenet", 1)[0].removeprefix("mst_") for path in FOLDER.glob("*imagenet*.py")}
    assert names == set(PUBLISHED)
