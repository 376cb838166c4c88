"""Attention maps and class tokens against softmax written out, timm's own blocks and features."""

import pytest
import timm
import torch
from timm.layers import Attention

from mst_transfer.probes.attention import attention_maps, class_token_block, token_grid
from mst_transfer.probes.backbones import create_backbone
from mst_transfer.probes.features import class_tokens

SMALL = dict(arch="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2)
SWIN = dict(arch="swin_tiny_patch4_window7_224", img_size=64, embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4))


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return create_backbone(**SMALL).eval()


@pytest.fixture
def swin():
    torch.manual_seed(0)
    return create_backbone(**SWIN).eval()


def full_softmax_attention(attn: Attention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(QK^T / sqrt(d)) V, one image and one head at a time."""
    B, T, D = x.shape
    d = D // attn.num_heads
    matrices = torch.zeros(B, attn.num_heads, T, T)
    outputs = torch.zeros(B, T, D)
    for b in range(B):
        qkv = x[b] @ attn.qkv.weight.T + attn.qkv.bias
        for head in range(attn.num_heads):
            q, k, v = (qkv[:, part * D + head * d : part * D + (head + 1) * d] for part in range(3))
            scores = q @ k.T / d**0.5
            matrices[b, head] = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            outputs[b, :, head * d : (head + 1) * d] = matrices[b, head] @ v
    return outputs @ attn.proj.weight.T + attn.proj.bias, matrices


@pytest.mark.parametrize("options", [{}, dict(qk_norm=True), dict(init_values=0.1), dict(qkv_bias=False)])
def test_class_token_block_equals_the_whole_block(options):
    torch.manual_seed(0)
    block = create_backbone(**SMALL, **options).eval().blocks[-1]
    x = torch.randn(2, 17, 24, requires_grad=True)
    cls, _ = class_token_block(block, x)
    expected = block(x)[:, :1]
    torch.testing.assert_close(cls, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (cls, expected))
    torch.testing.assert_close(ours, theirs)


def block_outputs(vit, images: torch.Tensor) -> list[torch.Tensor]:
    """Tokens [B, T, D] after each block, not normalised, by running timm's blocks one after the other."""
    tokens, outputs = vit._pos_embed(vit.patch_embed(images)), []
    for block in vit.blocks:
        tokens = block(tokens)
        outputs.append(tokens)
    return outputs


@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_attention_is_the_last_blocks_class_row_laid_out_on_the_grid(vit, size):
    images = torch.randn(2, 3, *size)
    last = vit.blocks[-1]
    _, matrices = full_softmax_attention(last.attn, last.norm1(block_outputs(vit, images)[-2]))
    rows, columns = size[0] // 8, size[1] // 8
    attention = attention_maps(vit, images)
    assert attention.dtype == torch.float32 and attention.shape == (2, 2, rows, columns)
    for y in range(rows):
        for x in range(columns):
            torch.testing.assert_close(attention[:, :, y, x], matrices[:, :, 0, 1 + y * columns + x])


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_class_tokens_of_the_last_blocks_each_pass_the_final_norm(vit, num_blocks):
    images = torch.randn(2, 3, 32, 48)
    outputs = [vit.norm(tokens) for tokens in block_outputs(vit, images)]
    expected = [tokens[:, 0] for tokens in outputs[-num_blocks:]]
    torch.testing.assert_close(class_tokens(vit, images, num_blocks), torch.cat(expected, dim=-1))
    features = class_tokens(vit, images, num_blocks, average_patches=True)
    mean = outputs[-1][:, 1:].sum(dim=1) / 24
    if num_blocks == 1:
        torch.testing.assert_close(features[:, 0::2], expected[0])
        torch.testing.assert_close(features[:, 1::2], mean)
    else:
        torch.testing.assert_close(features, torch.cat([*expected, mean], dim=-1))


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_the_feature_of_swin_is_timms(swin, size):
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(class_tokens(swin, images), swin(images))


def test_16_bit_features_on_the_cpu_agree(vit):
    """bfloat16 has 8 significant bits: after three blocks, 2 % of the largest value."""
    images = torch.randn(2, 3, 32, 32)
    exact = class_tokens(vit, images)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = class_tokens(vit, images)
        assert [block.attn.fused_attn for block in vit.blocks] == [False] * 3  # several times quicker there
        assert attention_maps(vit, images).dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.02 * exact.abs().max()


def test_views_must_consist_of_whole_tokens(vit, swin):
    assert token_grid(vit, 32, 48) == (4, 6) and token_grid(swin, 224, 96) == (7, 3)
    with pytest.raises(ValueError, match="30x32 px is not a multiple of the patch size 8.*24 or 32"):
        token_grid(vit, 30, 32)
    with pytest.raises(ValueError, match="100x96 px is not a multiple of .* 32.*96 or 128"):
        attention_maps(swin, torch.randn(1, 3, 100, 96))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(arch="vit_smal_patch16_224"), ["vit_smal", "vit_small_patch16_224"]),
        (dict(arch="swin_tinny_patch4_window7_224"), ["swin_tinny", "swin_tiny_patch4_window7_224"]),
        (dict(arch="resnet18"), ["resnet18", "class token", "swin_tiny"]),
        (dict(arch="swinv2_tiny_window8_256"), ["swinv2_tiny_window8_256", "swin_tiny"]),
        (SMALL | dict(class_token=False, global_pool="avg", fc_norm=False), ["of another kind", "class token"]),
        (dict(arch="vit_tiny_patch16_224.no"), ["tag"]),
        (SWIN | dict(depth=3), ["depth", "swin_tiny_patch4_window7_224"]),
        (SMALL | dict(global_pool="avg"), ["fc_norm", "global_pool='token'"]),
        (SMALL | dict(global_pool="map"), ["attn_pool", "global_pool='token'"]),
    ],
    ids=lambda value: value.get("arch") if isinstance(value, dict) else "",
)
def test_unfit_architectures_are_named(options: dict, words: list[str]):
    """A norm or pooling behind the tokens: the class token has no final norm, or its file would hold a head."""
    with pytest.raises(ValueError) as error:
        create_backbone(**options)
    assert all(word in str(error.value) for word in words)


def test_a_pooling_that_the_class_token_passes_is_allowed():
    create_backbone(**SMALL, global_pool="avg", fc_norm=False)
    assert isinstance(create_backbone("deit_tiny_distilled_patch16_224", depth=1), timm.models.VisionTransformer)
