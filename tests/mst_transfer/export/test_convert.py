"""Conversion: what is written is kept only if it computes the same, under names that nothing is lost by."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
from backbones_to_convert import KINDS, make_model, make_original
from keys_cubic import resampled
from safetensors.torch import load_file

from mst_transfer.checkpoint import load_backbone, read_backbone
from mst_transfer.checkpoint.sources import swin
from mst_transfer.export import detectron2_layout, mmpretrain_layout
from mst_transfer.export.convert import convert, target_named
from mst_transfer.export.source_model import ConversionError, SourceModel, read_source_model
from mst_transfer.export.timm_layout import TIMM, write_file
from mst_transfer.export.verify import plain_bicubic

PAIRS = [
    *(("timm", kind) for kind in KINDS),
    *(("mst", kind) for kind in KINDS),
    *(("mmpretrain", kind) for kind in ("vit", "layer_scale", "swin")),
    ("detectron2", "vit"),
]


def out_of(target, folder):
    return folder / f"out{target.suffixes[0] if target.suffixes else ''}"


@pytest.mark.parametrize(("name", "original"), PAIRS, indirect=["original"])
def test_a_converted_file_reads_back_bit_for_bit(name, original, tmp_path) -> None:
    target = target_named(name)
    out = out_of(target, tmp_path)
    agreement = convert(original, target, out)
    assert len(agreement.differences) >= 2 and max(agreement.differences.values()) < 1e-5
    model = original.model()
    for parameter in model.parameters():
        parameter.data.fill_(7.0)
    load_backbone(model, out)
    for tensor_name, tensor in model.state_dict().items():
        assert torch.equal(tensor, original.tensors[tensor_name]), tensor_name


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_usage_line_creates_timms_model_from_the_file(original, suffix, tmp_path) -> None:
    out = tmp_path / f"out{suffix}"
    convert(original, TIMM, out)
    loaded = eval(TIMM.usage(original, out), {"timm": timm})
    for name, tensor in make_model("vit").state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_our_own_file_gets_metadata(original, tmp_path) -> None:
    convert(original, target_named("mst"), tmp_path / "out.safetensors")
    _, metadata = read_backbone(tmp_path / "out.safetensors")
    assert metadata == original.metadata
    assert metadata.provenance["converted_from"] == "vit.pth" and len(metadata.provenance["sha256"]) == 64
    again = read_source_model(tmp_path / "out.safetensors")
    assert again.remarks == () and again.metadata == metadata


def test_what_is_assumed_is_said_and_can_be_given(original) -> None:
    assert any("ImageNet's, assumed" in remark for remark in original.remarks)
    arch, options = KINDS["vit"]
    given = read_source_model(
        original.path, arch=arch, arch_kwargs=options, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    assert given.remarks == () and given.metadata.mean == (0.5, 0.5, 0.5) and given.metadata.std == (0.25, 0.25, 0.25)


def test_the_image_size_follows_the_position_embedding(original) -> None:
    arch, options = KINDS["vit"]
    without = {name: value for name, value in options.items() if name != "img_size"}
    assert read_source_model(original.path, arch=arch, arch_kwargs=without).metadata.img_size == (32, 32)


def test_another_size_or_architecture_is_refused(original) -> None:
    arch, options = KINDS["vit"]
    with pytest.raises(ConversionError, match="would be resampled .*16"):
        read_source_model(original.path, arch=arch, arch_kwargs=options | {"patch_size": 16, "img_size": 64})
    with pytest.raises(ValueError, match="not a timm model; near names: vit_small_patch16_224"):
        read_source_model(original.path, arch="vit_smal_patch16_224")
    with pytest.raises(ConversionError, match="does not take all of"):
        read_source_model(original.path, arch=arch, arch_kwargs=options | {"heads": 3})
    with pytest.raises(ValueError, match="another architecture"):
        read_source_model(original.path, arch=arch, arch_kwargs=options | {"depth": 3})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_stored_and_converted_on(original, dtype, tmp_path) -> None:
    convert(original, TIMM, tmp_path / "half.safetensors", dtype=dtype)
    stored = load_file(tmp_path / "half.safetensors")
    for name, tensor in original.tensors.items():
        assert torch.equal(stored[name], tensor.to(getattr(torch, dtype))), name
    arch, options = KINDS["vit"]
    again = read_source_model(tmp_path / "half.safetensors", arch=arch, arch_kwargs=options)
    assert {tensor.dtype for tensor in again.tensors.values()} == {getattr(torch, dtype)}


def test_a_value_too_large_for_half_precision_is_refused(original, tmp_path) -> None:
    original.tensors["norm.bias"][0] = 1e5
    with pytest.raises(ConversionError, match="norm.bias has values that float16 cannot hold"):
        convert(original, TIMM, tmp_path / "out.pth", dtype="float16")


def test_existing_outputs_stay_unless_they_may_be_replaced(original, tmp_path) -> None:
    out = tmp_path / "out.pth"
    out.write_text("precious")
    with pytest.raises(ConversionError, match="exists; .*--overwrite"):
        convert(original, TIMM, out)
    assert out.read_text() == "precious"
    convert(original, TIMM, out, overwrite=True)
    assert torch.load(out, weights_only=True).keys() == original.tensors.keys()
    with pytest.raises(ConversionError, match="ends in .safetensors or .pth"):
        convert(original, TIMM, tmp_path / "out.bin")
    with pytest.raises(ConversionError, match="is a folder"):
        (tmp_path / "folder.pth").mkdir()
        convert(original, TIMM, tmp_path / "folder.pth", overwrite=True)


def refused(original, target, out, match="") -> None:
    before = {path.name for path in out.parent.iterdir()}
    with pytest.raises(ValueError, match=match):
        convert(original, target, out)
    assert {path.name for path in out.parent.iterdir()} == before


def test_exchanged_tensors_are_caught_and_nothing_is_left(tmp_path, monkeypatch) -> None:
    vit, swin_model = make_original("vit", tmp_path), make_original("swin", tmp_path)
    # two tensors of equal shape under each other's names
    exchanged = {"blocks.0.norm1.bias": "blocks.0.norm2.bias", "blocks.0.norm2.bias": "blocks.0.norm1.bias"}
    other = replace(vit, tensors={exchanged.get(name, name): tensor for name, tensor in vit.tensors.items()})
    for target in (TIMM, mmpretrain_layout.TARGET, detectron2_layout.TARGET):
        cheat = replace(target, write=lambda original, path, t=target: t.write(other, path))
        refused(vit, cheat, tmp_path / "out.pth", "computes other features|reader gets 2 of")

    monkeypatch.setattr(swin, "channel_first", lambda tensor: tensor)
    refused(swin_model, mmpretrain_layout.TARGET, tmp_path / "out.pth", "reader gets 3 of .*downsample")


def test_the_largest_difference_and_its_place_are_said(original, tmp_path) -> None:
    changed = replace(original, tensors={**original.tensors, "norm.bias": original.tensors["norm.bias"].clone()})
    changed.tensors["norm.bias"][5] += 0.5
    cheat = replace(TIMM, write=lambda _, path: write_file(changed, path))
    refused(
        original,
        cheat,
        tmp_path / "out.pth",
        r"at 32x32: .* largest difference 0\.5 at \[\d, \d+, 5\] of \[2, 17, 24\]",
    )


def test_what_a_layout_has_no_place_for_is_refused(tmp_path) -> None:
    registers, scaled = make_original("registers", tmp_path), make_original("layer_scale", tmp_path)
    eva, gated = make_original("dinov3", tmp_path), make_original("swiglu", tmp_path)
    refused(gated, mmpretrain_layout.TARGET, tmp_path / "out.pth", "has GluMlp with SiLU")
    with pytest.raises(ConversionError, match="has Mlp with QuickGELU"):
        vit = timm.create_model("vit_base_patch16_clip_quickgelu_224", device="meta")
        SourceModel.require_plain_mlp(SimpleNamespace(skeleton=vit), "detectron2's ViT")
    refused(registers, mmpretrain_layout.TARGET, tmp_path / "out.pth", "no register tokens")
    refused(scaled, detectron2_layout.TARGET, tmp_path / "out.pth", "no place for blocks.0.ls1.gamma")
    vit = make_original("vit", tmp_path)
    bare = replace(vit, tensors=vit.tensors | dict(pos_embed=vit.tensors["pos_embed"][:, 1:]))  # as DeiT III's
    refused(bare, mmpretrain_layout.TARGET, tmp_path / "out.pth", "the class token's first")
    refused(eva, mmpretrain_layout.TARGET, tmp_path / "out.pth", "ViT and Swin only")
    refused(eva, detectron2_layout.TARGET, tmp_path / "out.pth", "ViTs only")


def test_plain_bicubic_is_torchs_without_smoothing() -> None:
    pos_embed = torch.randn(1, 1 + 12, 2, generator=torch.Generator().manual_seed(0))
    found = plain_bicubic(pos_embed, (5, 2), (3, 4), 1)
    torch.testing.assert_close(found, resampled(pos_embed, (3, 4), (5, 2)), atol=1e-5, rtol=0)


def test_other_resampling_is_said(original, tmp_path) -> None:
    agreement = convert(original, mmpretrain_layout.TARGET, tmp_path / "out.pth")
    assert any("resamples position embeddings in another way" in remark for remark in agreement.remarks)
    dino = replace(original, metadata=replace(original.metadata, pos_embed_interpolation="dino"))
    agreement = convert(dino, TIMM, tmp_path / "dino.pth")
    assert any("(dino): features differ by up to" in remark for remark in agreement.remarks)
    assert convert(original, TIMM, tmp_path / "timm.pth").remarks == ()


def test_metadata_travel_in_timms_safetensors(original, tmp_path) -> None:
    from safetensors import safe_open

    convert(original, TIMM, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        strings = file.metadata()
    assert strings["format"] == "pt" and json.loads(strings["mst_transfer"])["arch"] == original.metadata.arch
