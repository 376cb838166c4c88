import pytest
import torch

from mst_transfer.probes.attention import attention_maps
from pretrain.backbones.vit import MaskedViT

SMALL = dict(arch="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2)


@pytest.fixture
def vit() -> MaskedViT:
    torch.manual_seed(0)
    return MaskedViT(**SMALL).eval()


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (48, 24)])
def test_features_equal_timm(vit, size):
    images = torch.randn(2, 3, *size)
    expected = vit.vit.forward_features(images)
    full = vit(images, patch_tokens=True, importance=True)
    lean = vit(images, importance=True)
    torch.testing.assert_close(full.cls_token, expected[:, 0])
    torch.testing.assert_close(lean.cls_token, expected[:, 0])
    torch.testing.assert_close(full.patch_tokens.flatten(1, 2), expected[:, 1:])
    torch.testing.assert_close(full.importance, lean.importance)
    assert vit.num_patches(*size) == full.patch_tokens.flatten(1, 2).shape[1] and vit.cell_size == 8


def test_importance_is_the_head_average_of_the_attention_maps(vit):
    images = torch.randn(2, 3, 32, 32)
    maps = attention_maps(vit.vit, images)
    torch.testing.assert_close(vit(images, importance=True).importance, maps.mean(dim=1).flatten(1))


@pytest.mark.parametrize("patch_tokens", [False, True])
def test_16_bit_attention_on_the_cpu_is_spelt_out_and_agrees(vit, patch_tokens):
    """bfloat16 has 8 significant bits: after three blocks, 2 % of the largest value, and 5 % of a gradient's norm."""
    images, weight = torch.randn(2, 3, 32, 32), torch.randn(24)
    cls_tokens, gradients = [], []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = vit(images, patch_tokens=patch_tokens)
        assert [block.attn.fused_attn for block in vit.vit.blocks] == [not enabled] * 3
        loss = (output.cls_token.float() @ weight).sum()
        if patch_tokens:
            loss = loss + (output.patch_tokens.float() @ weight).sum()
        cls_tokens.append(output.cls_token.float())
        gradients.append(torch.autograd.grad(loss, list(vit.vit.parameters())))
    exact, rounded = cls_tokens
    assert 0 < (exact - rounded).abs().max() < 0.02 * exact.abs().max()
    for (name, _), full, half in zip(vit.vit.named_parameters(), *gradients, strict=True):
        assert (full - half).norm() < 0.05 * full.norm() + 1e-3, name


def test_mask_replaces_embeddings_before_the_position_embedding(vit):
    """The token stays in the sequence and keeps its place; its content is forgotten."""
    images, mask = torch.randn(2, 3, 32, 32), torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 3] = mask[1, 7] = mask[1, 8] = True
    model = vit.vit
    embedded = model.patch_embed(images).flatten(1, 2)
    for b, i in mask.nonzero().tolist():
        embedded[b, i] = vit.mask_token
    tokens = torch.cat([model.cls_token.expand(2, -1, -1), embedded], dim=1) + model.pos_embed
    for block in model.blocks:
        tokens = block(tokens)
    expected = model.norm(tokens)
    output = vit(images, mask=mask, patch_tokens=True)
    torch.testing.assert_close(output.patch_tokens.flatten(1, 2), expected[:, 1:])
    torch.testing.assert_close(output.cls_token, expected[:, 0])
    changed = images.clone()
    changed[0, :, 0:8, 24:32] += 100  # patch 3 of image 0
    torch.testing.assert_close(vit(changed, mask=mask).cls_token, output.cls_token)
