import pytest
import timm
import torch

from mst_transfer.probes.attention import attention_maps
from pretrain.backbones.swin import MaskedSwin
from pretrain.run.optim import parameter_groups

NAME = "swin_tiny_patch4_window7_224"
SMALL = dict(arch=NAME, img_size=224, embed_dim=8, depths=(2, 2, 1, 1), num_heads=(1, 2, 2, 4))


@pytest.fixture
def swin() -> MaskedSwin:
    torch.manual_seed(0)
    model = MaskedSwin(**SMALL).eval()
    with torch.no_grad():  # norms and biases as after training: neither 1 nor 0
        for parameter in model.vit.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def last_block_input(swin: MaskedSwin, images: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = swin.vit.layers[-1].blocks[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    swin.vit.forward_features(images)
    handle.remove()
    return seen[0]


def test_importance_equals_a_plain_loop(swin):
    """softmax over the tokens of q(mean) · k / sqrt(d), one image and one head at a time, averaged over heads."""
    images = torch.randn(2, 3, 96, 64)
    x = last_block_input(swin, images)  # [2, 3, 2, 64]
    block, heads, width = swin.vit.layers[-1].blocks[-1], 4, 64
    d = width // heads
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    expected = torch.zeros(2, heads, 6)
    for b in range(2):
        tokens = block.norm1(x[b].reshape(6, width))
        query = weight[:width] @ tokens.mean(dim=0) + bias[:width]
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            scores = torch.zeros(6)
            for i in range(6):
                key = weight[width : 2 * width] @ tokens[i] + bias[width : 2 * width]
                scores[i] = query[part] @ key[part] / d**0.5
            expected[b, head] = scores.exp() / scores.exp().sum()
    torch.testing.assert_close(attention_maps(swin.vit, images).flatten(2), expected)
    torch.testing.assert_close(swin(images, importance=True).importance, expected.mean(dim=1))
    assert swin(images).importance is None and swin(images).patch_tokens is None


@pytest.mark.parametrize("options", [dict(qkv_bias=False), dict(head_dim=5)])
def test_importance_with_other_projections(options):
    swin = MaskedSwin(**SMALL, **options).eval()
    importance = swin(torch.randn(2, 3, 64, 64), importance=True).importance
    torch.testing.assert_close(importance.sum(dim=1), torch.ones(2))
    assert importance.shape == (2, 4) and importance.std(dim=1).min() > 0


@pytest.mark.parametrize("size", [(224, 224), (96, 96), (64, 160)])
def test_features_equal_timm(swin, size):
    images = torch.randn(2, 3, *size)
    output = swin(images, patch_tokens=True, importance=True)
    torch.testing.assert_close(output.patch_tokens, swin.vit.forward_features(images))
    torch.testing.assert_close(output.cls_token, swin.vit(images))
    assert output.patch_tokens.shape == (2, size[0] // 32, size[1] // 32, 64)


@pytest.mark.parametrize("side", [96, 128])
def test_other_sizes_equal_a_model_built_for_them(swin, side):
    """Same weights, windows of 7 kept, masks computed once for that size."""
    fixed = dict(SMALL, img_size=side)
    built = timm.create_model(fixed.pop("arch"), num_classes=0, window_size=7, always_partition=True, **fixed).eval()
    built.load_state_dict(swin.vit.state_dict())
    assert built.layers[1].blocks[1].attn_mask is not None and swin.vit.layers[1].blocks[1].attn_mask is None
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(swin(images, patch_tokens=True).patch_tokens, built.forward_features(images))


def test_masked_cells_equal_a_plain_loop(swin):
    images, mask = torch.randn(2, 3, 96, 64), torch.zeros(2, 6, dtype=torch.bool)
    mask[0, 1] = mask[1, 2] = mask[1, 5] = True
    embedded = swin.vit.patch_embed(images).clone()  # [2, 24, 16, 8]
    for b in range(2):
        for row in range(24):
            for column in range(16):
                if mask[b, (row // 8) * 2 + column // 8]:
                    embedded[b, row, column] = swin.mask_token
    expected = swin.vit.norm(swin.vit.layers(embedded))
    output = swin(images, mask=mask, patch_tokens=True)
    torch.testing.assert_close(output.patch_tokens, expected)
    torch.testing.assert_close(output.cls_token, expected.mean(dim=(1, 2)))


def test_importance_stays_float32_under_autocast(swin):
    images = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        importance = swin(images, importance=True).importance
    assert importance.dtype == torch.float32
    torch.testing.assert_close(importance.sum(dim=1), torch.ones(2))


def test_position_biases_get_no_weight_decay(swin):
    decayed, spared = ({id(p) for p in group["params"]} for group in parameter_groups(swin))
    tables = {id(p) for name, p in swin.named_parameters() if name.endswith("relative_position_bias_table")}
    assert len(tables) == 6 and tables <= spared and not tables & decayed
