"""What differs between timm's ViT classes: names, tables of relative positions, rotary positions, heads."""

import pytest
import timm
import torch
from small_vit import make_metadata, make_vit

from mst_transfer.checkpoint import (
    BackboneRefusedError,
    architecture_of,
    load_backbone,
    save_backbone,
)
from mst_transfer.checkpoint.pos_embed import use_pos_embed_interpolation
from mst_transfer.checkpoint.sources.openmmlab import NAMES
from mst_transfer.checkpoint.sources.scheme import from_timm
from mst_transfer.checkpoint.sources.timm_like import moco_v3_position
from mst_transfer.checkpoint.timm_names import to_names_of_model

SIZE = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0)


def make(arch: str, **changes):
    """A model of random weights, biases and tables included."""
    model = timm.create_model(arch, **(SIZE | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def features(model, size=(32, 32)):
    torch.manual_seed(3)
    with torch.no_grad():
        return model.forward_features(torch.randn(1, 3, *size))


def saved_state(model, path):
    torch.save(model.state_dict(), path)
    return path


def assert_same_features(model, other, size=(32, 32)):
    torch.testing.assert_close(features(model, size), features(other, size), atol=1e-5, rtol=1e-5)


def test_a_shared_table_serves_every_block_but_not_the_other_way_round(tmp_path):
    shared = make("beit_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    each = make("beit_base_patch16_224")
    load_backbone(each, saved_state(shared, tmp_path / "shared.pth"))
    assert_same_features(each, shared)
    with pytest.raises(BackboneRefusedError, match="blocks.0.attn.relative_position_bias_table"):
        load_backbone(shared, saved_state(each, tmp_path / "each.pth"))


@pytest.mark.parametrize("size", [(48, 48), (32, 64), (24, 40)])
@pytest.mark.parametrize("shared", [False, True])
def test_tables_are_resized_as_timm_does(tmp_path, size, shared):
    options = dict(use_rel_pos_bias=not shared, use_shared_rel_pos_bias=shared)
    model = make("beit_base_patch16_224", **options)
    other = make("beit_base_patch16_224", img_size=size, **options)
    report = load_backbone(other, saved_state(model, tmp_path / "beit.pth"))
    assert set(report.resized.values()) == {f"4x4 -> {size[0] // 8}x{size[1] // 8}"}
    model.set_input_size(size)
    assert_same_features(other, model, size)


def test_tables_of_a_rectangle_are_read_by_the_metadata(tmp_path):
    model, other = make("beit_base_patch16_224", img_size=(16, 32)), make("beit_base_patch16_224")
    metadata = make_metadata(arch="beit_base_patch16_224", arch_kwargs=dict(num_heads=2), img_size=(16, 32))
    save_backbone(
        tmp_path / "wide.safetensors", {n: t for n, t in model.state_dict().items() if "fc_norm" not in n}, metadata
    )
    load_backbone(other, tmp_path / "wide.safetensors", may_miss=["fc_norm"])
    model.set_input_size((32, 32))
    assert_same_features(other, model)
    torch.save(make("beit_base_patch16_224", img_size=(16, 32)).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(BackboneRefusedError, match="has 24 rows, which is not that of a grid"):
        load_backbone(other, tmp_path / "wide.pth")


def test_other_heads_show_in_the_tables(tmp_path):
    path = saved_state(make("beit_base_patch16_224", num_heads=3), tmp_path / "beit.pth")
    with pytest.raises(BackboneRefusedError, match="checkpoint: heads 3; model: heads 2"):
        load_backbone(make("beit_base_patch16_224"), path)


@pytest.mark.parametrize("give", ["beit_base_patch16_224", "vit_tiny_patch16_224"])  # q_bias and gamma_1, or not
def test_classes_of_equal_function_take_each_others_weights(tmp_path, give):
    beit = dict(use_abs_pos_emb=True, use_rel_pos_bias=False, use_fc_norm=False)
    beit, vit = make("beit_base_patch16_224", init_values=0.1, **beit), make("vit_tiny_patch16_224", init_values=0.1)
    model, other = (beit, vit) if give.startswith("beit") else (vit, beit)
    report = load_backbone(other, saved_state(model, tmp_path / "file.pth"))
    assert not report.missing and not report.unexpected
    assert_same_features(other, model)


def test_biases_are_left_out_only_without_effect():
    zeros = {"blocks.0.attn.q_bias": torch.zeros(24), "blocks.0.attn.v_bias": torch.zeros(24)}
    model = make_vit(qkv_bias=False)
    assert to_names_of_model(zeros, model) == ({}, tuple(zeros))
    ones = {name: tensor + 1 for name, tensor in zeros.items()}
    kept, left_out = to_names_of_model(ones, model)
    assert set(kept) == set(ones) and left_out == ()


def test_a_bias_of_keys_matters_with_rotary_positions_only(tmp_path):
    """Without them it is left out; timm's plain attention, which has it, gives the same features."""
    plain = make("vit_tiny_patch16_224")
    with torch.no_grad():
        without = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
        for block in range(2):
            without[f"blocks.{block}.attn.qkv.bias"][24:48] = 0
    other = make("vit_tiny_patch16_224")
    other.load_state_dict(without)
    torch.testing.assert_close(features(other), features(plain), atol=1e-5, rtol=1e-5)
    rotary = make("vit_small_patch16_dinov3_qkvb")
    state = {n: t for n, t in rotary.state_dict().items() if not n.endswith(("q_bias", "v_bias"))}
    state |= {f"blocks.{block}.attn.qkv.bias": torch.ones(72) for block in range(2)}
    torch.save(state, tmp_path / "rotary.pth")
    with pytest.raises(BackboneRefusedError, match="no place for: blocks.0.attn.qkv.bias"):
        load_backbone(make("vit_small_patch16_dinov3_qkvb"), tmp_path / "rotary.pth")


def official_dinov3(model, **changes):
    """The names of DINOv3's own code for timm's weights."""
    state = {"storage_tokens": model.reg_token.detach(), "rope_embed.periods": model.rope.periods.bfloat16()}
    for name, tensor in model.state_dict().items():
        if name.endswith("q_bias"):
            v = model.state_dict()[name.replace("q_bias", "v_bias")]
            state[name.replace("q_bias", "qkv.bias")] = torch.cat([tensor, 9 * torch.ones_like(tensor), v])
            mask = torch.cat([torch.ones(24), torch.zeros(24), torch.ones(24)])
            state[name.replace("q_bias", "qkv.bias_mask")] = mask
        elif not name.endswith("v_bias") and name != "reg_token":
            state[name.replace("gamma_", "ls").replace("ls1", "ls1.gamma").replace("ls2", "ls2.gamma")] = tensor
    return state | changes


def test_periods_of_rotary_positions_are_compared(tmp_path):
    model = make("vit_small_patch16_dinov3_qkvb")
    torch.save(official_dinov3(model), tmp_path / "dinov3.pth")  # rounded, as published
    other = make("vit_small_patch16_dinov3_qkvb")
    report = load_backbone(other, tmp_path / "dinov3.pth")
    assert "rope.periods" in report.skipped and not report.unexpected
    torch.testing.assert_close(features(other), features(model), rtol=0, atol=0)
    for changes, message in (
        (dict(num_heads=3), "heads of width 12"),
        (dict(rope_temperature=50.0), "rope_temperature"),
    ):
        with pytest.raises(BackboneRefusedError, match=message):
            load_backbone(make("vit_small_patch16_dinov3_qkvb", **changes), tmp_path / "dinov3.pth")


def test_keys_with_a_bias_and_norms_apart_are_refused(tmp_path):
    model = make("vit_small_patch16_dinov3_qkvb")
    state = {name: t for name, t in official_dinov3(model).items() if not name.endswith("bias_mask")}
    torch.save(state, tmp_path / "biased.pth")
    with pytest.raises(
        BackboneRefusedError, match=r"biased.pth \(DINOv3\): blocks.0.attn.qkv.bias gives the keys a bias"
    ):
        load_backbone(make("vit_small_patch16_dinov3_qkvb"), tmp_path / "biased.pth")
    torch.save(official_dinov3(model) | {"cls_norm.weight": torch.ones(24)}, tmp_path / "norms.pth")
    with pytest.raises(BackboneRefusedError, match="no place for: cls_norm.weight"):
        load_backbone(make("vit_small_patch16_dinov3_qkvb"), tmp_path / "norms.pth")
    torch.save(official_dinov3(model) | {"local_cls_norm.weight": torch.ones(24)}, tmp_path / "local.pth")
    assert "local_cls_norm.weight" in load_backbone(model, tmp_path / "local.pth").skipped


@pytest.mark.parametrize("names", ["timm", "mmpretrain"])
def test_moco_v3s_heads_are_twelve_under_any_names(names, tmp_path):
    model = make_vit(embed_dim=384, depth=1, num_heads=12)
    model.pos_embed.data.copy_(moco_v3_position(16, 384))
    state = model.state_dict() if names == "timm" else from_timm(model.state_dict(), NAMES, names)
    torch.save({"state_dict": state}, tmp_path / "moco.pth")
    with pytest.raises(BackboneRefusedError, match="of width 384 has 12 attention heads, the model has 6"):
        load_backbone(make_vit(embed_dim=384, depth=1, num_heads=6), tmp_path / "moco.pth")
    load_backbone(make_vit(embed_dim=384, depth=1, num_heads=12), tmp_path / "moco.pth")
    assert architecture_of(tmp_path / "moco.pth")[1]["num_heads"] == 12


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_are_read(zipped, tmp_path):
    model, other = make_vit(), make_vit()
    torch.save(model.state_dict(), tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    load_backbone(other, tmp_path / "file.pth")
    torch.testing.assert_close(other.norm.weight, model.norm.weight, rtol=0, atol=0)


def test_dinos_resampling_is_refused_where_it_means_nothing():
    for arch in ("beit_base_patch16_224", "vit_small_patch16_dinov3"):
        with pytest.raises(ValueError, match="pos_embed_interpolation='dino' is for timm's VisionTransformer"):
            use_pos_embed_interpolation(make(arch), "dino")
