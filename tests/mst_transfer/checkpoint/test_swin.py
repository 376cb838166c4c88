"""Swin checkpoints of every project load whole and give their own code's features; wrong ones are refused by name."""

import copy

import pytest
import timm
import torch
from golden_swin import PROJECTS, golden_swin
from timm.layers import resize_rel_pos_bias_table

from mst_transfer.checkpoint import (
    BackboneMetadata,
    BackboneNotCoveredError,
    BackboneRefusedError,
    load_backbone,
    read_backbone,
    save_backbone,
)
from mst_transfer.checkpoint.architecture import architecture_of, infer_architecture
from mst_transfer.checkpoint.families.infer_swin import infer_swin
from mst_transfer.checkpoint.sources.swin import from_hugging_face, from_official

ARCH = "swin_tiny_patch4_window7_224"
SMALL = dict(embed_dim=4, depths=(2, 2, 1, 1), num_heads=(1, 2, 2, 4))
CASES = [(project, role) for project in PROJECTS for role in golden_swin(project).maps]


def build(arch=ARCH, **changes):
    return timm.create_model(arch, pretrained=False, num_classes=0, **(SMALL | changes)).eval()


def save(tensors, path):
    torch.save({"model": tensors}, path)
    return path


@pytest.fixture
def official(tmp_path):
    """Tensors in the official layout, a function that saves them, and a model that fits them."""
    golden = golden_swin("official")
    tensors = {name.removeprefix("model."): tensor for name, tensor in golden.checkpoint.items()}
    return tensors, lambda changed: save(changed, tmp_path / "swin.pth"), build(**golden.arch_kwargs)


@pytest.mark.parametrize(("project", "role"), CASES)
def test_checkpoint_of_each_project_gives_its_features(project, role, tmp_path):
    golden = golden_swin(project)
    path = golden.save(tmp_path / "checkpoint.pth")
    model = build(golden.arch, **golden.arch_kwargs)
    report = load_backbone(model, path, role=role)
    assert report.scheme == golden.source
    assert report.role == (role if project == "moby" else None)
    assert len(report.loaded) == len(model.state_dict())
    assert not (report.missing or report.unexpected or report.resized or report.remark)
    x = model.patch_embed(golden.image)
    for number, stage in enumerate(model.layers):
        x = stage(x)
        torch.testing.assert_close(x.permute(0, 3, 1, 2), golden.maps[role][f"stage_{number}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.norm(x).permute(0, 3, 1, 2), golden.maps[role]["features"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("project", PROJECTS)
def test_architecture_is_inferred(project, tmp_path):
    golden = golden_swin(project)
    assert architecture_of(golden.save(tmp_path / "checkpoint.pth")) == (golden.arch, golden.arch_kwargs)


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        (ARCH, {}, {}),
        ("swin_small_patch4_window7_224", {}, {}),
        ("swin_base_patch4_window12_384", {}, {}),
        ("swin_large_patch4_window7_224", {}, {}),
        ("swin_base_patch4_window7_224", dict(window_size=6, img_size=192), dict(window_size=6, img_size=192)),
        (ARCH, dict(img_size=96), dict(window_size=(7, 7, 6, 3), img_size=96)),
        (ARCH, dict(in_chans=1, qkv_bias=False, mlp_ratio=2.0), dict(in_chans=1, mlp_ratio=2.0, qkv_bias=False)),
        (ARCH, dict(head_dim=16), dict(head_dim=16)),
    ],
)
def test_architectures_of_timm_are_inferred(arch, options, expected):
    tensors = timm.create_model(arch, num_classes=0, device="meta", **options).state_dict()
    assert infer_architecture(tensors, "file") == (arch, expected)


def test_architecture_of_a_cut_file_is_not_guessed():
    tensors = {n: t for n, t in build().state_dict().items() if not n.startswith("layers.1.blocks.0")}
    with pytest.raises(BackboneRefusedError, match="file lacks blocks of a stage"):
        infer_swin(tensors, "file")
    with pytest.raises(BackboneRefusedError, match="file has no patch_embed.proj.weight"):
        infer_swin({n: t for n, t in tensors.items() if "patch_embed" not in n}, "file")


def test_names_of_transformers_5_are_read():
    transformers = pytest.importorskip("transformers", reason="its Swin is the oracle")
    config = transformers.SwinConfig(image_size=64, window_size=2, drop_path_rate=0.0, **SMALL)
    theirs, ours = transformers.SwinModel(config).eval(), build(img_size=64, window_size=2)
    if not any(".q_proj." in name for name in theirs.state_dict()):
        pytest.skip("this transformers has the names of release 4, which the golden file has")
    ours.load_state_dict(from_hugging_face(theirs.state_dict()))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(image).last_hidden_state
        torch.testing.assert_close(ours.forward_features(image).flatten(1, 2), expected, atol=1e-5, rtol=0)


def test_norms_of_a_backbone_of_transformers_are_numbered():
    names = from_hugging_face({f"hidden_states_norms.stage{n}.weight": torch.ones(n) for n in (1, 3)})
    assert {name: len(tensor) for name, tensor in names.items()} == {"norm0.weight": 1, "norm2.weight": 3}


def test_old_and_new_timm_are_told_apart():
    """Merging stays at the start of a stage if it is there already."""
    new = build().state_dict()
    assert from_official(new).keys() == new.keys()
    old = new
    for stage in (1, 2, 3):
        old = {name.replace(f"layers.{stage}.down", f"layers.{stage - 1}.down"): tensor for name, tensor in old.items()}
    assert all(torch.equal(tensor, new[name]) for name, tensor in from_official(old).items())


@pytest.mark.parametrize("windows", [(4, 4, 4, 4), (7, 7, 7, 7), (2, 2, 2, 2), ((3, 5),) * 4])
def test_tables_are_resampled_as_timm_does(official, windows):
    tensors, saved, _ = official
    model = build(img_size=256, window_size=windows, always_partition=True)
    report = load_backbone(model, saved(tensors))
    for name, new in model.state_dict().items():
        if not name.endswith("bias_table"):
            continue
        window = model.get_submodule(name.rpartition(".")[0]).window_size
        expected = resize_rel_pos_bias_table(tensors[name], window, new.shape)
        torch.testing.assert_close(new, expected)
        assert (name in report.resized) == (len(tensors[name]) != len(new))
    assert not report.missing


def test_own_checkpoint_knows_windows_that_are_not_square(tmp_path):
    torch.manual_seed(0)
    kwargs = SMALL | dict(img_size=(64, 96), window_size=(3, 5))
    source = timm.create_model(ARCH, num_classes=0, **kwargs)
    metadata = BackboneMetadata(ARCH, kwargs, 4, (64, 96), 4, (0.5,) * 3, (0.5,) * 3, "teacher")
    save_backbone(tmp_path / "teacher.safetensors", source.state_dict(), metadata)
    same = timm.create_model(ARCH, num_classes=0, **kwargs)
    assert not load_backbone(same, tmp_path / "teacher.safetensors").resized
    other = build(img_size=256, window_size=7)
    report = load_backbone(other, tmp_path / "teacher.safetensors")
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    assert report.resized[name] == "window 3x5 -> 7x7"
    expected = resize_rel_pos_bias_table(source.state_dict()[name], (7, 7), (169, 1), (3, 5))
    torch.testing.assert_close(other.state_dict()[name], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depths=(2, 2, 3, 1)), r"blocks of the stages \(2, 2, 1, 1\).*blocks of the stages \(2, 2, 3, 1\)"),
        (dict(depths=(2, 2, 1), num_heads=(1, 2, 2)), r"blocks of the stages \(2, 2, 1, 1\).*\(2, 2, 1\)"),
        (dict(depths=(2, 1, 1, 1)), r"\(2, 2, 1, 1\).*\(2, 1, 1, 1\)"),
        (dict(num_heads=(1, 1, 2, 4)), r"heads of the stages \(1, 2, 2, 4\).*heads of the stages \(1, 1, 2, 4\)"),
        (dict(embed_dim=8), "width 4.*width 8"),
        (dict(mlp_ratio=2.0), "shapes differ in layers.0.blocks.0.mlp.fc1.weight"),
        (dict(qkv_bias=False), "tensors that the model has no place for: layers.0.blocks.0.attn.qkv.bias"),
    ],
)
def test_another_architecture_is_refused_before_anything_is_copied(official, options, message):
    tensors, saved, _ = official
    model = build(img_size=64, window_size=2, **options)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BackboneRefusedError, match=message):
        load_backbone(model, saved(tensors))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("lost", ["norm", "patch_embed.norm", "layers.1.blocks.1.mlp", "layers.2.downsample"])
def test_partial_checkpoint_is_refused(official, lost):
    tensors, saved, model = official
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(lost + ".")}
    with pytest.raises(BackboneNotCoveredError, match="does not cover the backbone.*would stay random"):
        load_backbone(model, saved(kept))


def test_lost_key_of_transformers_is_refused(tmp_path):
    golden = golden_swin("transformers")
    lost = "swin.encoder.layers.1.blocks.0.attention.self.key.weight"
    path = tmp_path / "checkpoint.pth"
    torch.save({name: tensor for name, tensor in golden.checkpoint.items() if name != lost}, path)
    with pytest.raises(BackboneNotCoveredError, match="layers.1.blocks.0.attn has no weight of k"):
        load_backbone(build(**golden.arch_kwargs), path)


TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"
MIXTURE = "layers.1.blocks.1.mlp._moe_layer.fc1.weight"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({TABLE: torch.zeros(45, 1)}, rf"{TABLE} has 45 rows.*window_size=\(height, width\)"),
        ({"absolute_pos_embed": torch.zeros(1, 256, 4)}, "swin.pth.*absolute position embedding.*ape=False"),
        ({MIXTURE: torch.zeros(1)}, f"no place for: {MIXTURE}"),
    ],
)
def test_what_timms_swin_does_not_compute_is_refused(official, more, message):
    tensors, saved, model = official
    with pytest.raises(BackboneRefusedError, match=message):
        load_backbone(model, saved(tensors | more))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stages.0.blocks.0.attn.w_msa.logit_scale", "mmpretrain, Swin V2.*only the first version"),
        ("encoder.layers.0.blocks.0.attention.self.logit_scale", "transformers, Swin V2"),
        ("layers.0.blocks.0.attn.logit_scale", "timm, Swin V2"),
        ("layers.0.blocks.0.spatial_mlp.weight", "Swin-MLP"),
    ],
)
def test_relatives_of_swin_are_refused(name, message, tmp_path):
    with pytest.raises(BackboneRefusedError, match=message):
        read_backbone(save({"backbone." + name: torch.ones(1)}, tmp_path / "swin.pth"))


def test_published_classes_of_swin_v2_bear_the_names_that_are_refused():
    timms = timm.create_model("swinv2_tiny_window8_256", device="meta", depths=(1, 1), num_heads=(1, 2), embed_dim=8)
    assert "layers.0.blocks.0.attn.logit_scale" in timms.state_dict()
    transformers = pytest.importorskip("transformers", reason="its Swin V2 is to be refused")
    config = transformers.Swinv2Config(embed_dim=8, depths=(1, 1), num_heads=(1, 2), image_size=64, window_size=4)
    assert "encoder.layers.0.blocks.0.attention.self.logit_scale" in transformers.Swinv2Model(config).state_dict()


def test_swin_and_vit_refuse_each_others_files(saved, official):
    tensors, write, _ = official
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, embed_dim=4, depth=1, num_heads=1, patch_size=4)
    for model, path in ((build(), saved[1]), (vit, write(tensors))):
        with pytest.raises(BackboneRefusedError):
            load_backbone(model, path)
