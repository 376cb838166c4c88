"""Features, patch tokens and attention of DINOv3, EVA-02, BEiT and ViTs without a class token, against timm's own."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from mst_transfer.probes.attention import attention_maps
from mst_transfer.probes.backbones import create_any, load_frozen
from mst_transfer.probes.features import class_tokens, patch_tokens
from mst_transfer.probes.other_vits import is_plain

NARROW = dict(embed_dim=48, depth=3, num_heads=3)
KINDS = {  # name → arch, options, and those of timm for images of another size
    "DINOv3": ("vit_small_patch16_dinov3", NARROW, dict(dynamic_img_size=True)),
    "EVA-02": ("eva02_small_patch14_224", NARROW | dict(img_size=56), dict(dynamic_img_size=True, use_fc_norm=False)),
    "mixed rotations": ("vit_small_patch16_rope_mixed_224", NARROW | dict(img_size=64), dict(dynamic_img_size=True)),
    "BEiT": ("beit_base_patch16_224", NARROW | dict(img_size=64), dict(use_fc_norm=False)),
    "registers alone": (
        "vit_small_patch16_224",
        NARROW | dict(img_size=64, class_token=False, global_pool="avg", reg_tokens=2),
        dict(dynamic_img_size=True, fc_norm=False),
    ),
}


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, tuple[int, int]]:
    """Ours, timm's with the same weights, and the size of an image, which is square and the model's only for BEiT."""
    arch, options, theirs = KINDS[request.param]
    torch.manual_seed(0)
    ours = create_any(arch, **options).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.2)
    reference = timm.create_model(arch, num_classes=0, **options, **theirs).eval()
    reference.load_state_dict(ours.state_dict(), strict=False)
    missing = set(reference.state_dict()) - set(ours.state_dict())
    assert not {name for name in missing if not name.startswith(("head", "fc_norm"))}
    side = ours.patch_embed.patch_size[0]
    return ours, reference, (4 * side, 4 * side) if request.param == "BEiT" else (3 * side, 5 * side)


def test_tokens_equal_timms(pair) -> None:
    ours, reference, (height, width) = pair
    assert not is_plain(ours)
    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        expected = reference.forward_intermediates(
            images, indices=2, norm=True, intermediates_only=True, return_prefix_tokens=True
        )
        tokens, features = patch_tokens(ours, images, 2), class_tokens(ours, images, 2)
    has_class = ours.cls_token is not None
    maps, prefixes = zip(*expected, strict=True)  # all kinds have a class token or registers
    torch.testing.assert_close(tokens, torch.cat(list(maps), dim=1).permute(0, 2, 3, 1))
    means = [grid.mean(dim=(2, 3)) for grid in maps]
    first = [prefix[:, 0] for prefix in prefixes] if has_class else means
    torch.testing.assert_close(features, torch.cat(first, dim=-1))
    if has_class:
        both = class_tokens(ours, images, 2, average_patches=True)
        torch.testing.assert_close(both, torch.cat([*first, means[-1]], dim=-1))
    else:
        with pytest.raises(ValueError, match="average-patches"):
            class_tokens(ours, images, average_patches=True)


def test_attention_equals_timms_softmax(pair) -> None:
    ours, reference, (height, width) = pair
    images, seen = torch.randn(2, 3, height, width), []
    attention = reference.blocks[-1].attn
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        reference.forward_features(images)
        maps = attention_maps(ours, images)
    prefix = ours.num_prefix_tokens
    rows = seen[-1] if ours.cls_token is None else seen[-1][:, :, :1]
    torch.testing.assert_close(maps.flatten(2), rows.mean(dim=2)[..., prefix:])


def test_a_file_of_dinov3_is_recognised(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("vit_small_patch16_dinov3", num_classes=0, depth=2).eval()
    torch.save(model.state_dict(), tmp_path / "dinov3.pth")
    frozen, _ = load_frozen(tmp_path / "dinov3.pth")
    assert frozen.model.num_prefix_tokens == 5
    views = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = timm.create_model(
            "vit_small_patch16_dinov3", num_classes=0, depth=2, dynamic_img_size=True, global_pool="token"
        )
        expected.load_state_dict(model.state_dict())
        torch.testing.assert_close(frozen.features()(views), expected.eval()(frozen.normalise(views)))
