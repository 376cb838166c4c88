"""ViTDet's neck: shapes, norms, gradients, refusals. What its numbers equal: tests/golden/test_vitdet.py."""

import pytest
import torch
from mmengine.registry import MODELS

from mst_transfer.models.backbones.vit import TimmViT
from mst_transfer.models.necks import SimpleFeaturePyramid


@pytest.mark.parametrize("patch_size", [8, 14, 16, 32])
@pytest.mark.parametrize("size", [(96, 64), (77, 130)])
def test_shapes(patch_size, size):
    grid = [-(-side // patch_size) for side in size]
    maps = SimpleFeaturePyramid(8, 4, patch_size=patch_size)([torch.randn(2, 8, *grid)])
    padded = [side * patch_size for side in grid]
    for output, stride in zip(maps, (4, 8, 16, 32, 64), strict=True):
        expected = [-(-side // min(stride, 32)) for side in padded]
        if stride == 64:
            expected = [-(-side // 2) for side in expected]
        assert list(output.shape) == [2, 4, *expected]


def test_behind_a_backbone_built_by_name():
    with MODELS.switch_scope_and_registry("mmdet") as registry:
        neck = registry.build(dict(type="mst_transfer.SimpleFeaturePyramid", in_channels=24, out_channels=6))
    backbone = TimmViT(
        "vit_tiny_patch16_224", embed_dim=24, depth=2, num_heads=3, out_indices=(-1,), window_size=2, global_blocks=()
    )
    maps = neck(backbone(torch.randn(1, 3, 64, 96)))
    assert [tuple(m.shape[-2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    sum(m.square().mean() for m in maps).backward()
    assert [name for model in (neck, backbone) for name, p in model.named_parameters() if p.grad is None] == []


def test_several_maps_are_refused():
    with pytest.raises(ValueError, match=r"in_channels=\[8, 8, 8, 8\] must be the width of .* one map"):
        SimpleFeaturePyramid([8, 8, 8, 8])
    with pytest.raises(ValueError, match=r"takes one map, not 4.*out_indices=\(-1,\)"):
        SimpleFeaturePyramid(8)([torch.randn(1, 8, 4, 4)] * 4)
