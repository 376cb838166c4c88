"""What ``mst inspect`` finds in a file, against the models that the files were made from."""

import hashlib

import pytest
import timm
import torch
from backbones_to_convert import KINDS, make_model
from small_vit import SMALL, dino_full, make_metadata, make_vit

from mst_transfer.checkpoint import save_backbone
from mst_transfer.export.inspection import inspect
from mst_transfer.registry import MODELS


def test_our_own_file(saved) -> None:
    model, path = saved
    facts = inspect(path)
    assert facts["file"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["file"]["bytes"] == path.stat().st_size
    provenance = {"config": "some_config", "epoch": 3}
    assert facts["names"] == dict(source="MST", roles=["teacher"], read="teacher", provenance=provenance)
    expected = dict(arch="vit_tiny_patch16_224", known_from="metadata", width=24, depth=2, heads=3, patch=8)
    expected |= dict(grid=[4, 4], class_token=True, registers=0, layer_scale=False, positions="absolute")
    expected["arch_kwargs"] = SMALL
    assert expected.items() <= facts["architecture"].items()
    weights = facts["weights"]
    assert weights["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert weights["bytes"] == 4 * weights["parameters"] and weights["dtypes"] == {"float32": weights["tensors"]}
    assert facts["load"]["loaded"] == weights["tensors"] == len(model.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_written_by_us(kind, tmp_path) -> None:
    arch, options = KINDS[kind]
    model = make_model(kind)
    width, patch = model.patch_embed.proj.weight.shape[0], model.patch_embed.patch_size[0]
    metadata = make_metadata(
        arch=arch, arch_kwargs=options, embed_dim=width, patch_size=patch, img_size=(options["img_size"],) * 2
    )
    save_backbone(tmp_path / "x.safetensors", model.state_dict(), metadata)
    facts = inspect(tmp_path / "x.safetensors")
    found = facts["architecture"]
    assert facts["load"]["loaded"] == len(model.state_dict()) and not facts["weights"]["not_finite"]
    assert (found["width"], found["patch"]) == (width, patch)
    relative = dict.fromkeys(("beit", "beit_fc_norm", "swin"), "relative")
    assert found["positions"] == (relative | {"dinov3": "rotary"}).get(kind, "absolute")
    scaled = {"vit": False, "fc_norm": False, "distilled": False, "swin": None}.get(kind, True)
    assert found.get("layer_scale") == scaled
    assert found.get("registers") == {"registers": 4, "dinov3": 4, "swin": None}.get(kind, 0)
    if kind == "swin":
        assert (found["depth"], found["heads"], found["window"]) == ([2, 2], [2, 3], 4)


def test_a_foreign_file_with_both_networks_and_a_head(tmp_path) -> None:
    wide = dict(embed_dim=192, img_size=224, patch_size=16)
    torch.save(dino_full(make_vit(**wide), make_vit(**wide)), tmp_path / "checkpoint.pth")
    facts = inspect(tmp_path / "checkpoint.pth")
    assert facts["names"]["roles"] == ["teacher", "student"] and facts["names"]["read"] == "teacher"
    assert facts["architecture"]["known_from"] == "tensors" and facts["architecture"]["mean"] is None
    assert facts["architecture"]["pos_embed_interpolation"] == "dino"
    assert inspect(tmp_path / "checkpoint.pth", "student")["names"]["read"] == "student"
    torch.save(make_vit(num_classes=5, **wide).state_dict(), tmp_path / "classifier.pth")
    facts = inspect(tmp_path / "classifier.pth")
    assert facts["weights"]["heads"] == ["head.weight", "head.bias"] == facts["load"]["skipped"]


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}),  # these have a norm behind the pooling
        ("beit_base_patch16_224", {}),
    ],
)
def test_the_config_line_builds_a_backbone_that_loads_the_file(arch, options, tmp_path) -> None:
    model = timm.create_model(arch, depth=4, num_classes=3, img_size=64, **options)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    namespace: dict = {}
    exec(inspect(tmp_path / "x.pth")["use"], namespace)
    backbone = MODELS.build(namespace["model"]["backbone"])
    backbone.init_weights()
    assert torch.equal(backbone.vit.blocks[3].mlp.fc2.weight, model.blocks[3].mlp.fc2.weight)


def test_broken_numbers_and_unknown_architectures_are_said(tmp_path) -> None:
    model = make_vit(embed_dim=192, img_size=224, patch_size=16)
    model.norm.bias.data[3] = float("inf")
    torch.save(model.state_dict(), tmp_path / "diverged.pth")
    facts = inspect(tmp_path / "diverged.pth")
    assert facts["weights"]["not_finite"] == ["norm.bias"] and "diverged" in facts["load"]["refused"]
    assert "use" not in facts
    torch.save(make_vit().state_dict(), tmp_path / "odd.pth")
    facts = inspect(tmp_path / "odd.pth")
    assert facts["architecture"]["arch"] is None and "width 24" in facts["architecture"]["why"]
    assert "architecture is unknown" in facts["load"]["refused"] and facts["weights"]["parameters"] > 0
