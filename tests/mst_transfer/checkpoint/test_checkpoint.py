"""The checkpoint contract: round trip, foreign layouts, resampling, and every refusal."""

import argparse
import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_vit import SMALL, dino_full, make_metadata, make_vit, with_prefix

from mst_transfer.checkpoint import (
    BackboneNotCoveredError,
    BackboneRefusedError,
    find_backbone,
    load_backbone,
    read_backbone,
    save_backbone,
)


def assert_same_weights(model, tensors):
    for name, value in model.state_dict().items():
        torch.testing.assert_close(tensors[name], value, rtol=0, atol=0)


def test_round_trip_keeps_tensors_and_metadata(saved):
    model, path = saved
    tensors, metadata = read_backbone(path)
    assert metadata == make_metadata()
    assert set(tensors) == set(model.state_dict())
    assert_same_weights(model, tensors)
    other = make_vit()
    report = load_backbone(other, path)
    assert_same_weights(model, other.state_dict())
    assert len(report.loaded) == len(model.state_dict())
    assert (report.resized, report.missing, report.unexpected, report.skipped) == ({}, (), (), ())


LAYOUTS = {  # what is made of a teacher and a student, and the network that the file names
    "timm or DINO backbone": (lambda t, s: t.state_dict(), None),
    "timm with head": (lambda t, s: t.state_dict() | {"head.weight": torch.ones(5, 24)}, None),
    "DINO full": (dino_full, "teacher"),
    "MAE": (
        lambda t, s: {
            "model": t.state_dict()
            | {"mask_token": torch.ones(1, 1, 24), "decoder_blocks.0.norm1.bias": torch.ones(2)},
            "args": argparse.Namespace(),
        },
        None,
    ),
    "state_dict, module.": (lambda t, s: {"state_dict": with_prefix(t, "module."), "epoch": 1}, None),
    "encoder.": (lambda t, s: {"state_dict": with_prefix(t, "module.encoder.")}, None),
    "detector": (lambda t, s: {"state_dict": with_prefix(t, "backbone.vit.") | {"neck.w": torch.ones(1)}}, None),
    "mmengine, both": (
        lambda t, s: {
            "state_dict": with_prefix(t, "teacher.backbone.vit.") | with_prefix(s, "student.backbone.vit."),
            "meta": {"epoch": 1},
        },
        "teacher",
    ),
    "student only": (lambda t, s: {"student": with_prefix(s, "module.")}, "student"),
    "teacher only": (lambda t, s: {"teacher": with_prefix(t, "module.")}, "teacher"),
    "MoCo v3": (
        lambda t, s: with_prefix(t, "module.momentum_encoder.") | with_prefix(s, "module.base_encoder."),
        "teacher",
    ),
    "mmpretrain's MoCo v3": (
        lambda t, s: with_prefix(t, "momentum_encoder.module.0.") | with_prefix(s, "backbone."),
        "teacher",
    ),
}
WITH_BOTH = ("DINO full", "mmengine, both", "MoCo v3")
NESTED = ("DINO full", "MAE", "student only", "teacher only")


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [*((name, ".pth") for name in LAYOUTS), *((name, ".safetensors") for name in LAYOUTS if name not in NESTED)],
)
def test_foreign_layouts_load_completely_and_tell_their_network(tmp_path, layout, suffix):
    """No role means the only network that is named, else the teacher."""
    teacher, student, (make, role) = make_vit(), make_vit(), LAYOUTS[layout]
    content, path = make(teacher, student), tmp_path / f"foreign{suffix}"
    if suffix == ".pth":
        torch.save(content, path)
    else:
        flat = content.get("state_dict", content)
        save_file({name: value.contiguous().clone() for name, value in flat.items()}, path)
    for asked in (None, role or "teacher", *["student"] * (layout in WITH_BOTH)):
        model = make_vit()
        report = load_backbone(model, path, role=asked)
        assert_same_weights(model, (student if "student" in (role, asked) else teacher).state_dict())
        assert len(report.loaded) == len(model.state_dict()) and not report.unexpected
        assert report.role == (role and (asked or role))
        assert report.table().splitlines()[0].endswith(f"({', '.join(filter(None, (report.scheme, report.role)))})")


@pytest.mark.parametrize(("role", "other"), [("teacher", "student"), ("student", "teacher")])
def test_our_own_files_are_taken_as_what_they_are(tmp_path, role, other):
    path = tmp_path / "x.safetensors"
    save_backbone(path, make_vit().state_dict(), make_metadata(role=role))
    assert read_backbone(path, role=None)[1].role == role
    found = find_backbone(path, None)
    assert (found.scheme, found.role) == ("MST", role)
    with pytest.raises(ValueError, match=f"holds the {role}, not the {other}.*role='{role}'"):
        read_backbone(path, role=other)


def test_a_folder_is_refused_with_what_is_in_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder.*holds no weights"):
        read_backbone(tmp_path)
    torch.save({}, tmp_path / "model.pth")
    with pytest.raises(FileNotFoundError, match="is a folder; give the path of one of the files in it: model.pth"):
        read_backbone(tmp_path)


def test_a_file_that_was_read_once_is_loaded_without_its_path(saved):
    model, path = saved
    file, other = find_backbone(path), make_vit()
    path.unlink()
    assert load_backbone(other, file).source == str(path)
    assert_same_weights(model, other.state_dict())


def test_checkpoints_of_a_runner_are_read_with_their_log_histories(tmp_path):
    from mmengine.logging import MessageHub

    hub = MessageHub("test_checkpoint")
    hub.update_scalar("train/loss", 1.5)
    model = make_vit()
    content = {"state_dict": with_prefix(model, "teacher.backbone.vit."), "message_hub": hub.state_dict()}
    torch.save(content, tmp_path / "epoch_1.pth")
    allowed = set(torch.serialization.get_safe_globals())
    tensors, metadata = read_backbone(tmp_path / "epoch_1.pth")
    assert_same_weights(model, tensors)
    assert metadata is None
    assert set(torch.serialization.get_safe_globals()) == allowed  # mmengine loads its own with these


def test_missing_file_says_where_checkpoints_come_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors.*teacher.safetensors.*checkpoint=None"):
        load_backbone(make_vit(), tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(embed_dim=48), "checkpoint: width 24, depth 2, .*; model: width 48, depth 2"),
        (dict(depth=3), "checkpoint: width 24, depth 2, .*; model: width 24, depth 3"),
        (dict(depth=1), "checkpoint: width 24, depth 2, .*; model: width 24, depth 1"),
        (dict(num_heads=2), "heads 3.*heads 2"),
        (dict(mlp_ratio=2.0), "blocks.0.mlp.fc1.weight"),
        (dict(reg_tokens=2, no_embed_class=True), "16 patches|prefix|tokens"),
    ],
)
def test_other_architectures_are_refused_untouched(saved, changes, message):
    _, path = saved
    model = make_vit(**changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_backbone(model, path)
    assert_same_weights(model, before)


def test_default_number_of_heads_is_that_of_the_arch(tmp_path):
    options = {name: value for name, value in SMALL.items() if name != "num_heads"}  # vit_tiny: 3 heads
    save_backbone(tmp_path / "t.safetensors", make_vit().state_dict(), make_metadata(arch_kwargs=options))
    load_backbone(make_vit(), tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match="heads 3.*heads 2"):
        load_backbone(make_vit(num_heads=2), tmp_path / "t.safetensors")


def test_uncovered_backbone_is_refused_by_name(saved, tmp_path):
    model, path = saved
    tensors = {n: v for n, v in model.state_dict().items() if n != "blocks.1.mlp.fc2.bias"}
    torch.save(tensors, tmp_path / "part.pth")
    with pytest.raises(BackboneNotCoveredError, match="1 of its .* tensors.*blocks.1.mlp.fc2.bias.*may_miss"):
        load_backbone(make_vit(), tmp_path / "part.pth")
    report = load_backbone(make_vit(), tmp_path / "part.pth", may_miss=["blocks.1.mlp"])
    assert report.missing == ("blocks.1.mlp.fc2.bias",)


def test_trunk_tensors_without_a_place_are_refused(tmp_path):
    """In its blocks; what stands elsewhere is reported."""
    torch.save(make_vit().state_dict() | {"momentum": torch.ones(1)}, tmp_path / "more.pth")
    assert load_backbone(make_vit(), tmp_path / "more.pth").unexpected == ("momentum",)
    torch.save(make_vit(init_values=0.1).state_dict(), tmp_path / "scaled.pth")
    with pytest.raises(ValueError, match="no place for: blocks.0.ls1.gamma.*init_values"):
        load_backbone(make_vit(), tmp_path / "scaled.pth")


def test_blocks_removed_on_purpose_are_skipped(saved):
    _, path = saved
    model = make_vit()
    model.prune_intermediate_layers([0], prune_norm=True)
    with pytest.raises(ValueError, match="depth 2.*depth 1"):
        load_backbone(model, path)
    report = load_backbone(model, path, unused=["blocks.1", "norm"])
    assert {name.split(".")[0] for name in report.skipped} == {"blocks", "norm"}
    assert len(report.skipped) == 14 and not report.unexpected


@pytest.mark.parametrize(
    ("content", "role", "message"),
    [
        (
            lambda vit: {"weight": torch.ones(2)},
            None,
            "holds no ViT or Swin backbone.*'patch_embed.proj.weight'",
        ),
        (lambda vit: with_prefix(vit, "a.") | with_prefix(vit, "b."), None, "several backbones .under 'a', 'b'."),
        (lambda vit: vit.state_dict(), "coach", "role='coach' is not one of"),
        (lambda vit: {"student": vit.state_dict()}, "teacher", "holds no teacher, only student.*role='student'"),
        (lambda vit: {"teacher": vit.state_dict()}, "student", "holds no student, only teacher.*role='teacher'"),
    ],
)
def test_files_without_the_network_that_is_asked_for_are_refused(tmp_path, content, role, message):
    torch.save(content(make_vit()), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        read_backbone(tmp_path / "x.pth", role=role)


def test_model_that_is_no_vit_is_refused(saved):
    with pytest.raises(ValueError, match="Linear has no .*'patch_embed.proj.weight': give a timm Swin or ViT"):
        load_backbone(torch.nn.Linear(2, 2), saved[1])


@pytest.mark.parametrize(
    ("change_state", "changes", "message"),
    [
        (lambda s: {"module." + n: v for n, v in s.items()}, {}, "without a prefix"),
        (lambda s: s | {"head.weight": torch.ones(1)}, {}, "drop head.weight"),
        (lambda s: s | {"mask_token": torch.ones(1)}, {}, "drop mask_token"),
        (lambda s: s, dict(embed_dim=48), "metadata say width 48, patch 8; the tensors have width 24, patch 8"),
        (lambda s: s, dict(patch_size=16), "metadata say width 24, patch 16"),
    ],
)
def test_saving_what_is_no_backbone_is_refused(tmp_path, change_state, changes, message):
    state = change_state(make_vit().state_dict())
    with pytest.raises(ValueError, match=message):
        save_backbone(tmp_path / "x.safetensors", state, make_metadata(**changes))
    assert not list(tmp_path.iterdir())


def test_metadata_are_plain_strings_with_json_inside(saved):
    from safetensors import safe_open

    with safe_open(saved[1], framework="pt") as file:
        strings = file.metadata()
    assert strings["format"] == "mst_transfer.backbone" and strings["format_version"] == "1"
    assert json.loads(strings["arch_kwargs"]) == SMALL
    assert (strings["patch_size"], strings["embed_dim"], strings["role"]) == ("8", "24", "teacher")
    assert json.loads(strings["img_size"]) == [32, 32]
    assert json.loads(strings["provenance"])["epoch"] == 3


def test_checkpoints_of_mmengines_ema_hook_hold_the_average_as_the_model(tmp_path):
    """The oracle is the hook itself: it swaps the averaged and the trained weights when it saves."""
    from types import SimpleNamespace

    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    trained = torch.nn.Module()
    trained.backbone = make_vit()
    hook = EMAHook()
    hook.ema_model = ExponentialMovingAverage(trained)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    average = {name: value.clone() for name, value in hook.ema_model.module.backbone.state_dict().items()}
    checkpoint = dict(state_dict=dict(trained.state_dict()))
    hook.before_save_checkpoint(SimpleNamespace(iter=5, epoch=5), checkpoint)
    torch.save(checkpoint, tmp_path / "epoch_5.pth")
    for role, expected in (("teacher", average), ("student", trained.backbone.state_dict())):
        tensors, _ = read_backbone(tmp_path / "epoch_5.pth", role)
        for name, value in expected.items():
            torch.testing.assert_close(tensors[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, value):
    model, other = make_vit(), make_vit()
    model.blocks[1].attn.qkv.bias.data[3] = value
    save_backbone(tmp_path / "x.safetensors", model.state_dict(), make_metadata())
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(BackboneRefusedError, match=r"1 of \d+ tensors hold NaN .*: blocks.1.attn.qkv.bias. .*earlier"):
        load_backbone(other, tmp_path / "x.safetensors")
    assert_same_weights(other, before)


def test_another_arch_of_equal_shapes_is_remarked(saved):
    _, path = saved
    assert load_backbone(make_vit(), path).remark == ""
    other = timm.create_model("deit_tiny_patch16_224", pretrained=False, num_classes=0, **SMALL)
    report = load_backbone(other, path)
    assert "arch='vit_tiny_patch16_224', the model is arch='deit_tiny_patch16_224'" in report.remark
    assert report.table().splitlines()[-1] == f"  warning: {report.remark}"
