"""Architectures of full-size models, told from their names and shapes alone; nothing takes memory."""

import pytest
import timm
import torch

from mst_transfer.checkpoint import BackboneRefusedError
from mst_transfer.checkpoint.architecture import infer_architecture
from mst_transfer.checkpoint.sources.timm_like import TIMM_LIKE_SOURCES, moco_v3_position

PUBLISHED = [
    *("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_small_patch8_224", "vit_base_patch16_224"),
    *("vit_base_patch8_224", "vit_base_patch32_224", "vit_large_patch16_224", "vit_huge_patch14_224"),
    *("vit_small_patch14_dinov2", "vit_base_patch14_dinov2", "vit_large_patch14_dinov2", "vit_giant_patch14_dinov2"),
    *("vit_small_patch14_reg4_dinov2", "vit_base_patch14_reg4_dinov2", "vit_giant_patch14_reg4_dinov2"),
    *("vit_small_patch16_dinov3", "vit_small_plus_patch16_dinov3", "vit_base_patch16_dinov3"),
    *("vit_large_patch16_dinov3", "vit_huge_plus_patch16_dinov3", "vit_7b_patch16_dinov3"),
    *("vit_small_patch16_dinov3_qkvb", "vit_large_patch16_dinov3_qkvb", "deit_small_distilled_patch16_224"),
    *("beit_base_patch16_224", "beit_large_patch16_224"),
]


def on_meta(arch: str, **options) -> dict[str, torch.Tensor]:
    return dict(timm.create_model(arch, device="meta", **options).state_dict())


def marked(arch: str):
    """Large models take seconds even without memory."""
    large = any(size in arch for size in ("large", "huge", "giant", "7b"))
    return pytest.param(arch, marks=pytest.mark.slow if large else ())


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("vit_small_patch14_dinov2", "dino"),
        ("vit_small_patch14_reg4_dinov2", "timm"),
        ("deit3_small_patch16_224", "timm"),
    ],
)
def test_dinov2_under_timms_names_is_resampled_as_it_was_trained(arch, expected):
    source = TIMM_LIKE_SOURCES[-1]
    assert source.name.startswith("timm") and source.interpolation(on_meta(arch)) == expected


@pytest.mark.parametrize("arch", map(marked, PUBLISHED))
def test_full_size_models_are_told_by_name(arch):
    assert infer_architecture(on_meta(arch), "file") == (arch, {})


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("vit_small_patch16_224", dict(img_size=96, depth=6)),
        ("vit_small_patch16_224", dict(patch_size=4, in_chans=1, img_size=32)),
        ("vit_base_patch16_224", dict(reg_tokens=8, no_embed_class=True, init_values=1e-5)),
        ("vit_small_patch14_dinov2", dict(img_size=224)),
        ("vit_base_patch16_224", dict(global_pool="avg", qkv_bias=False)),
        ("beit_base_patch16_224", dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, use_fc_norm=False)),
        ("beit_large_patch16_224", dict(img_size=384, use_abs_pos_emb=True)),
        ("vit_small_patch16_224", dict(no_embed_class=True)),  # FlexiViT
        ("vit_base_patch16_224", dict(init_values=1e-5, no_embed_class=True)),  # DeiT-III
        ("vit_small_patch16_224", dict(reg_tokens=4, no_embed_class=True)),
        ("beit_base_patch16_224", dict(init_values=0.0, use_abs_pos_emb=True, use_rel_pos_bias=False)),
    ],
)
def test_other_sizes_are_told_by_overrides(arch, options):
    assert infer_architecture(on_meta(arch, **options), "file") == (arch, options)


@pytest.mark.parametrize(
    ("arch", "width", "heads"),
    [
        ("vit_small_patch16_224", 384, dict(num_heads=12)),
        ("vit_large_patch16_224", 1024, {}),  # says nothing of other widths: a MAE of mmpretrain has such positions
    ],
)
def test_moco_v3s_positions_give_a_small_vit_twelve_heads(arch, width, heads):
    model = timm.create_model(arch, depth=1)
    model.pos_embed.data.copy_(moco_v3_position(196, width))
    assert infer_architecture(model.state_dict(), "file") == (arch, dict(depth=1) | heads)
    model.pos_embed.data[0, 7, 7] += 0.1
    assert infer_architecture(model.state_dict(), "file") == (arch, dict(depth=1))


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("vit_tiny_patch16_224", dict(embed_dim=24, num_heads=3), "width 24, for which no number .*num_heads="),
        ("vit_base_patch16_clip_224", {}, "QuickGELU"),
        ("vit_small_patch16_224", dict(img_size=(32, 96)), "12 positions, .*img_size=.height, width"),
        ("vit_base_patch16_224", dict(qk_norm=True), "like vit_base_patch16_224 .*q_norm"),
        ("vit_small_patch16_rope_224", {}, "no position embedding.*arch="),
        ("vit_base_patch16_rope_224", {}, "no position embedding.*arch="),
        ("vit_small_patch16_rope_ape_224", {}, "rotary positions leave no tensors.*arch="),
        ("vit_base_patch16_rope_reg1_gap_256", {}, "no position embedding.*arch="),
        ("vit_base_patch16_rpn_224", {}, "no class token.*arch="),
        ("vit_base_patch16_dinov3", dict(num_reg_tokens=1), "no position embedding.*arch="),
        ("vit_small_patch16_224", dict(pos_embed="none"), "no position embedding.*arch="),
        ("vit_base_patch16_siglip_gap_224", {}, "no class token.*arch="),
        ("vit_base_patch16_224", dict(class_token=False, global_pool="avg", qkv_bias=False), "no class token.*arch="),
        ("eva02_tiny_patch14_224", {}, "EVA-02.*arch="),
    ],
)
def test_what_the_tensors_leave_open_is_refused(arch, options, message):
    with pytest.raises(BackboneRefusedError, match=message):
        infer_architecture(on_meta(arch, **options), "file")


def test_a_tensor_of_unknown_use_is_refused():
    state = on_meta("vit_small_patch16_224", depth=1) | {"freqs": torch.ones(6, 32)}
    with pytest.raises(BackboneRefusedError, match="freqs.*arch="):
        infer_architecture(state, "file")
    head = {name: torch.ones(3, 384) for name in ("head.weight", "pre_logits.fc.weight")}
    state.pop("freqs")
    assert infer_architecture(state | head, "file") == ("vit_small_patch16_224", dict(depth=1))
