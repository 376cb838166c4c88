"""Which of several networks is read, and what the report says about the file."""

import pytest
import torch
from small_vit import dino_full, make_metadata, make_vit, with_prefix

from mst_transfer.checkpoint import load_backbone, read_backbone, save_backbone
from mst_transfer.checkpoint.read import find_backbone

LAYOUTS = {
    "both": (lambda t, s: dino_full(t, s), "teacher"),
    "student only": (lambda t, s: {"student": with_prefix(s, "module.")}, "student"),
    "teacher only": (lambda t, s: {"teacher": with_prefix(t, "module.")}, "teacher"),
    "neither named": (lambda t, s: {"model": t.state_dict()}, None),
    "MoCo v3": (
        lambda t, s: with_prefix(t, "module.momentum_encoder.") | with_prefix(s, "module.base_encoder."),
        "teacher",
    ),
    "mmpretrain's MoCo v3": (
        lambda t, s: with_prefix(t, "momentum_encoder.module.0.") | with_prefix(s, "backbone."),
        "teacher",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_role_means_the_only_network_else_the_teacher(tmp_path, layout):
    teacher, student, model = make_vit(), make_vit(), make_vit()
    make, role = LAYOUTS[layout]
    torch.save(make(teacher, student), tmp_path / "file.pth")
    report = load_backbone(model, tmp_path / "file.pth", role=None)
    expected = student if role == "student" else teacher
    torch.testing.assert_close(model.blocks[0].attn.qkv.weight, expected.blocks[0].attn.qkv.weight, rtol=0, atol=0)
    assert report.role == role
    assert report.table().splitlines()[0].endswith(f"({', '.join(filter(None, (report.scheme, role)))})")


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_our_own_files_are_taken_as_what_they_are(tmp_path, role):
    save_backbone(tmp_path / "x.safetensors", make_vit().state_dict(), make_metadata(role=role))
    assert read_backbone(tmp_path / "x.safetensors", role=None)[1].role == role
    found = find_backbone(tmp_path / "x.safetensors", None)
    assert (found.scheme, found.role) == ("MST", role)


def test_a_folder_is_refused_with_what_is_in_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder.*holds no weights"):
        read_backbone(tmp_path)
    torch.save({}, tmp_path / "model.pth")
    with pytest.raises(FileNotFoundError, match="is a folder; give the path of one of the files in it: model.pth"):
        read_backbone(tmp_path)
