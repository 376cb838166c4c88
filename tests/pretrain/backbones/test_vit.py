import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention

from pretrain.backbones.vit import MaskedViT, class_token_attention, class_token_block

SMALL = dict(arch="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2)


@pytest.fixture
def vit() -> MaskedViT:
    torch.manual_seed(0)
    return MaskedViT(**SMALL).eval()


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


def test_class_token_row_equals_the_full_softmax(vit):
    attn, x = vit.vit.blocks[-1].attn, torch.randn(3, 17, 24)
    out, row = class_token_attention(attn, x)
    expected_out, expected = full_softmax_attention(attn, x)
    torch.testing.assert_close(row, expected[:, :, 0])
    torch.testing.assert_close(out, expected_out[:, :1])
    torch.testing.assert_close(row.sum(dim=-1), torch.ones(3, 2))


@pytest.mark.parametrize("options", [{}, dict(qk_norm=True), dict(init_values=0.1), dict(qkv_bias=False)])
def test_class_token_block_equals_the_whole_block(options):
    torch.manual_seed(0)
    block = MaskedViT(**SMALL, **options).eval().vit.blocks[-1]
    x = torch.randn(2, 17, 24, requires_grad=True)
    cls, _ = class_token_block(block, x)
    expected = block(x)[:, :1]
    torch.testing.assert_close(cls, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (cls, expected))
    torch.testing.assert_close(ours, theirs)


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


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (48, 24)])
def test_position_embeddings_are_resampled_as_dino_does_when_asked(size):
    torch.manual_seed(0)
    vit = MaskedViT(**SMALL, pos_embed_interpolation="dino").eval()
    grid = vit.vit.pos_embed[:, 1:].reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    scale = tuple((side // 8 + 0.1) / 4 for side in size)
    if size != (32, 32):
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    images = torch.randn(2, 3, *size)
    embedded = vit.vit.patch_embed(images).flatten(1, 2) + grid.flatten(2).transpose(1, 2)
    tokens = torch.cat([(vit.vit.cls_token + vit.vit.pos_embed[:, :1]).expand(2, -1, -1), embedded], dim=1)
    for block in vit.vit.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(vit(images).cls_token, vit.vit.norm(tokens)[:, 0])


def test_importance_is_the_head_average_of_the_last_block(vit):
    images = torch.randn(2, 3, 32, 32)
    inputs = []
    handle = vit.vit.blocks[-1].attn.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    vit(images, patch_tokens=True)
    handle.remove()
    _, matrices = full_softmax_attention(vit.vit.blocks[-1].attn, inputs[0])
    torch.testing.assert_close(vit(images, importance=True).importance, matrices[:, :, 0, 1:].mean(dim=1))


def block_outputs(vit: MaskedViT, images: torch.Tensor) -> list[torch.Tensor]:
    """Tokens [B, T, D] after each block, not normalised, by running timm's blocks one after the other."""
    model = vit.vit
    tokens, outputs = model._pos_embed(model.patch_embed(images)), []
    for block in model.blocks:
        tokens = block(tokens)
        outputs.append(tokens)
    return outputs


@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_attention_is_the_last_blocks_class_row_laid_out_on_the_grid(vit, size):
    images = torch.randn(2, 3, *size)
    last = vit.vit.blocks[-1]
    _, matrices = full_softmax_attention(last.attn, last.norm1(block_outputs(vit, images)[-2]))
    rows, columns = size[0] // vit.cell_size, size[1] // vit.cell_size
    attention = vit.attention(images)
    assert attention.dtype == torch.float32 and attention.shape == (2, 2, rows, columns)
    for y in range(rows):
        for x in range(columns):
            torch.testing.assert_close(attention[:, :, y, x], matrices[:, :, 0, 1 + y * columns + x])


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_class_tokens_of_the_last_blocks_each_pass_the_final_norm(vit, num_blocks):
    images = torch.randn(2, 3, 32, 48)
    outputs = [vit.vit.norm(tokens) for tokens in block_outputs(vit, images)]
    expected = [tokens[:, 0] for tokens in outputs[-num_blocks:]]
    torch.testing.assert_close(vit.cls_tokens(images, num_blocks), torch.cat(expected, dim=-1))
    features = vit.cls_tokens(images, num_blocks, average_patches=True)
    mean = outputs[-1][:, 1:].sum(dim=1) / 24
    if num_blocks == 1:
        torch.testing.assert_close(features[:, 0::2], expected[0])
        torch.testing.assert_close(features[:, 1::2], mean)
    else:
        torch.testing.assert_close(features, torch.cat([*expected, mean], dim=-1))


@pytest.mark.parametrize("num_blocks", [0, 4])
def test_class_tokens_of_more_blocks_than_there_are_is_refused(vit, num_blocks):
    with pytest.raises(ValueError, match=f"num_blocks = {num_blocks} must lie in 1 … 3"):
        vit.cls_tokens(torch.randn(1, 3, 32, 32), num_blocks)


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


def test_gradient_checkpointing_changes_nothing():
    torch.manual_seed(0)
    plain = MaskedViT(**SMALL)
    torch.manual_seed(0)
    thrifty = MaskedViT(**SMALL, grad_checkpointing=True)
    images = torch.randn(2, 3, 32, 32)
    for model in (plain, thrifty):
        model(images).cls_token.square().sum().backward()
    for (name, ours), theirs in zip(plain.vit.named_parameters(), thrifty.vit.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_the_papers_backbone_is_deit_small():
    """22 M parameters: 384-d, 12 blocks, 6 heads, patch 16; the published DeiT-S without its classifier."""
    vit = MaskedViT("vit_small_patch16_224").vit
    assert (vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads, vit.patch_embed.patch_size) == (
        384,
        12,
        6,
        (16, 16),
    )
    classifier = 384 * 1000 + 1000
    deit = timm.create_model("deit_small_patch16_224")
    assert sum(p.numel() for p in vit.parameters()) == sum(p.numel() for p in deit.parameters()) - classifier


@pytest.mark.parametrize(
    "arch, words",
    [
        ("vit_smal_patch16_224", ["vit_smal", "vit_small_patch16_224"]),
        ("resnet18", ["resnet18", "class token"]),
    ],
)
def test_bad_architectures_are_named(arch, words):
    with pytest.raises(ValueError) as error:
        MaskedViT(arch, img_size=32) if "vit" in arch else MaskedViT(arch)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("options", "part"), [(dict(global_pool="avg"), "fc_norm"), (dict(global_pool="map"), "attn_pool")]
)
def test_a_norm_or_pooling_behind_the_tokens_is_refused(options: dict, part: str):
    """Its class token has no final norm, or its backbone file would hold a head: said before the first step."""
    with pytest.raises(ValueError, match=f"{part}.*global_pool='token'"):
        MaskedViT(**SMALL, **options)
    MaskedViT(**SMALL, global_pool="token")
    MaskedViT(**SMALL, global_pool="avg", fc_norm=False)


def test_views_must_fit_the_patch_size(vit):
    assert vit.num_patches(32, 48) == 24 and vit.cell_size == 8
    with pytest.raises(ValueError, match="30x32 px is not a multiple of the patch size 8.*24 or 32"):
        vit.num_patches(30, 32)
