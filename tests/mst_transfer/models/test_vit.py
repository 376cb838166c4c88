"""The adapters' features equal timm's own on the same weights; pruning, freezing, loading and refusals."""

import logging

import pytest
import timm
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_state_dict, load_state_dict

from mst_transfer.checkpoint import BackboneMetadata, BackboneNotCoveredError, save_backbone
from mst_transfer.checkpoint.pos_embed import MARK, resample_pos_embed
from mst_transfer.models.backbones.vit import TimmViT, TimmViTPyramid

SMALL = dict(arch="vit_tiny_patch16_224", embed_dim=24, depth=4, num_heads=3)


def timm_twin(adapter_options, img_size):
    """A plain timm model of fixed image size, and a function that copies an adapter's weights into it."""
    options = {k: v for k, v in adapter_options.items() if k not in ("arch", "img_size", "out_indices", "out_norm")}
    return timm.create_model(adapter_options["arch"], pretrained=False, num_classes=0, img_size=img_size, **options)


def copy_weights(adapter, twin, img_size):
    """Copies all that the adapter kept; timm itself resamples the position embeddings to ``img_size``."""
    twin.set_input_size(img_size=adapter.vit.patch_embed.img_size)
    missing = twin.load_state_dict(adapter.vit.state_dict(), strict=False).missing_keys
    twin.set_input_size(img_size=img_size)
    return missing


@pytest.mark.parametrize("size", [(224, 224), (160, 256)])
@pytest.mark.parametrize(
    "options",
    [
        dict(arch="vit_small_patch16_224"),
        dict(arch="deit_small_patch16_224", out_norm="none"),
        dict(arch="vit_small_patch16_224", patch_size=32, out_indices=(1, 4)),
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_features_equal_timms(options, size):
    torch.manual_seed(0)
    adapter = TimmViT(**options).eval()
    twin = timm_twin(options, size).eval()
    copy_weights(adapter, twin, size)
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        ours = adapter(image)
        theirs = twin.forward_intermediates(
            image,
            indices=list(adapter.out_indices),
            norm=adapter.out_norm == "all",
            intermediates_only=True,
        )
    assert len(ours) == len(theirs) == len(adapter.out_indices)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-5


def test_features_equal_a_plain_loop_over_the_blocks():
    adapter = TimmViT(**SMALL, img_size=(32, 48), patch_size=8, out_norm="last").eval()
    image = torch.randn(2, 3, 32, 48)
    vit = adapter.vit
    tokens = F.conv2d(image, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, stride=8)
    tokens = tokens.flatten(2).transpose(1, 2)  # [B, 24, D]
    tokens = torch.cat([vit.cls_token.expand(2, 1, -1), tokens], dim=1) + vit.pos_embed
    expected = []
    for block in vit.blocks:
        tokens = block(tokens)
        expected.append(tokens)
    expected[-1] = vit.norm(expected[-1])
    for ours, theirs in zip(adapter(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs[:, 1:].transpose(1, 2).reshape(2, 24, 4, 6), atol=1e-5, rtol=0)


def test_sides_that_the_patch_does_not_divide_are_padded_right_and_below():
    adapter = TimmViT(**SMALL, img_size=32, patch_size=8).eval()
    image = torch.randn(1, 3, 27, 33)
    padded = F.pad(image, (0, 7, 0, 5))
    for ours, theirs in zip(adapter(image), adapter(padded), strict=True):
        assert ours.shape[-2:] == (4, 5)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("options", "blocks", "has_norm"),
    [
        (dict(), 4, True),
        (dict(out_norm="none"), 4, False),
        (dict(out_indices=(0, 2)), 3, True),
        (dict(out_indices=(0, 2), out_norm="last"), 3, False),
        (dict(out_indices=(-1,), out_norm="last"), 4, True),
    ],
)
def test_nothing_unused_is_left(options, blocks, has_norm):
    adapter = TimmViT(**SMALL, img_size=32, patch_size=8, **options)
    assert len(adapter.vit.blocks) == blocks
    assert isinstance(adapter.vit.norm, torch.nn.LayerNorm) == has_norm
    sum(grid.square().sum() for grid in adapter(torch.randn(1, 3, 32, 32))).backward()
    assert [name for name, p in adapter.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("depth", "expected"), [(12, (2, 5, 8, 11)), (6, (1, 2, 3, 5)), (4, (0, 1, 2, 3))])
def test_default_blocks_are_evenly_spaced(depth, expected):
    assert TimmViT(**SMALL | dict(depth=depth), img_size=32).out_indices == expected


def test_gradient_checkpointing_changes_nothing():
    plain = TimmViT(**SMALL, img_size=32, patch_size=8)
    saving = TimmViT(**SMALL, img_size=32, patch_size=8, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for model in (plain, saving):
        model.train()(torch.ones(1, 3, 32, 32))[-1].std().backward()
        gradients.append(model.vit.patch_embed.proj.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("stages", "trained_blocks"), [(-1, 4), (0, 4), (3, 1)])
def test_frozen_stages(stages, trained_blocks):
    adapter = TimmViT(**SMALL, img_size=32, frozen_stages=stages, drop_path_rate=0.5).train()
    trainable = {name for name, p in adapter.named_parameters() if p.requires_grad}
    assert len({name.split(".")[2] for name in trainable if name.startswith("vit.blocks.")}) == trained_blocks
    assert ("vit.pos_embed" in trainable) == (stages < 0)
    assert ("vit.patch_embed.proj.weight" in trainable) == (stages < 0)
    assert [block.training for block in adapter.vit.blocks].count(True) == trained_blocks


def save_weights(path, role="teacher", depth=4, interpolation="timm"):
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=0,
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=depth,
        num_heads=3,
    )
    kwargs = dict(img_size=32, patch_size=8, embed_dim=24, depth=depth, num_heads=3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    metadata = BackboneMetadata("vit_tiny_patch16_224", kwargs, 8, (32, 32), 24, mean, std, role, interpolation)
    save_backbone(path, vit.state_dict(), metadata)
    return vit


@pytest.mark.parametrize("how", ["checkpoint", "init_cfg"])
@pytest.mark.parametrize("out_indices", [None, (0, 1)])
def test_init_weights_loads_and_reports(tmp_path, caplog, how, out_indices):
    path = str(tmp_path / "teacher.safetensors")
    vit = save_weights(path)
    source = dict(checkpoint=path) if how == "checkpoint" else dict(init_cfg=dict(type="Pretrained", checkpoint=path))
    adapter = TimmViT(**SMALL, img_size=64, patch_size=8, out_indices=out_indices, **source)
    with caplog.at_level(logging.INFO):
        adapter.init_weights()
    torch.testing.assert_close(adapter.vit.blocks[1].mlp.fc1.weight, vit.blocks[1].mlp.fc1.weight, rtol=0, atol=0)
    assert adapter.vit.pos_embed.shape == (1, 65, 24)


@pytest.mark.parametrize("img_size", [32, 64])
def test_position_embeddings_are_resampled_as_in_pre_training(tmp_path, img_size):
    path = str(tmp_path / "teacher.safetensors")
    vit = save_weights(path, interpolation="dino")
    options = dict(SMALL, img_size=img_size, patch_size=8, out_indices=(3,))
    adapter = TimmViT(**options, checkpoint=path).eval()
    adapter.init_weights()
    image = torch.randn(1, 3, 40, 72)  # 5 x 9 patches
    grid = resample_pos_embed(vit.pos_embed, (img_size // 8, img_size // 8), (4, 4), 1, "dino")
    grid = resample_pos_embed(grid, (5, 9), (img_size // 8, img_size // 8), 1, "dino")
    tokens = vit.patch_embed.proj(image).flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token, tokens], dim=1) + grid
    for block in vit.blocks.eval():
        tokens = block(tokens)
    expected = vit.norm(tokens)[:, 1:].transpose(1, 2).reshape(1, 24, 5, 9)
    torch.testing.assert_close(adapter(image)[0], expected)

    tested = TimmViT(**options).eval()  # as a test run: no pre-training file, weights of the whole model
    load_state_dict(tested, get_state_dict(adapter), strict=True)
    torch.testing.assert_close(tested(image)[0], expected)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in adapter.state_dict().items()}}, tmp_path / "detector.pth")
    again = TimmViT(**options, checkpoint=str(tmp_path / "detector.pth")).eval()
    again.init_weights()
    torch.testing.assert_close(again(image)[0], expected)

    as_asked = TimmViT(**options, pos_embed_interpolation="timm").eval()
    load_state_dict(as_asked, get_state_dict(adapter), strict=True)
    plain = {k: v for k, v in adapter.state_dict().items() if k != MARK}
    load_state_dict(tested, plain, strict=True)  # a checkpoint without the mark
    assert (as_asked(image)[0] - expected).abs().max() > 1e-3
    torch.testing.assert_close(tested(image)[0], as_asked(image)[0])
    dino = TimmViT(**options, pos_embed_interpolation="dino").eval()
    load_state_dict(dino, plain, strict=True)
    torch.testing.assert_close(dino(image)[0], expected)


def test_random_initialisation_is_said(capsys):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance("test_vit_random")
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    TimmViT(**SMALL, img_size=32).init_weights()
    assert records == ["TimmViT: random initialisation (checkpoint=None)"]


def test_checkpoint_of_another_architecture_stops(tmp_path):
    path = str(tmp_path / "deep.safetensors")
    save_weights(path, depth=5)
    with pytest.raises(ValueError, match="depth 5.*depth 4"):
        TimmViT(**SMALL, img_size=32, patch_size=8, checkpoint=path).init_weights()
    # Fewer outputs than blocks do not hide it.
    with pytest.raises(ValueError, match="depth 5.*depth 4"):
        TimmViT(**SMALL, img_size=32, patch_size=8, checkpoint=path, out_indices=(1,)).init_weights()
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        TimmViT(**SMALL, img_size=32, patch_size=8, checkpoint=str(tmp_path / "absent.safetensors")).init_weights()


def test_uncovered_backbone_stops(tmp_path):
    vit = save_weights(tmp_path / "t.safetensors")
    torch.save({n: v for n, v in vit.state_dict().items() if not n.startswith("norm.")}, tmp_path / "part.pth")
    options = dict(SMALL, img_size=32, patch_size=8, checkpoint=str(tmp_path / "part.pth"))
    with pytest.raises(BackboneNotCoveredError, match="norm.weight"):
        TimmViT(**options).init_weights()
    TimmViT(**options, out_norm="none").init_weights()  # needs no norm


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(arch="vit_smal_patch16"),
            "arch='vit_smal_patch16' is not a timm model; near names:.*vit_small_patch16",
        ),
        (dict(arch="resnet18"), "resnet18"),
        (dict(arch="vit_tiny_patch16_224", depht=3), "depht"),
        (
            dict(arch="vit_tiny_patch16_224", out_indices=(3, 1)),
            r"out_indices=\(3, 1\) must increase within 0 … 11",
        ),
        (dict(arch="vit_tiny_patch16_224", out_indices=(12,)), "must increase within 0 … 11"),
        (dict(arch="vit_tiny_patch16_224", out_norm="first"), "out_norm='first' is not one of"),
        (dict(arch="vit_tiny_patch16_224", pos_embed_interpolation="dyno"), "interpolation='dyno' is not supported"),
        (dict(arch="vit_tiny_patch16_224", frozen_stages=13), "frozen_stages=13 is not in -1 … 12"),
        (dict(arch="vit_tiny_patch16_224", depth=3), "depth=3: give out_indices"),
        (dict(arch="vit_tiny_patch16_224", init_cfg=dict(type="Constant", val=0)), "init_cfg"),
        (
            dict(arch="vit_tiny_patch16_224", checkpoint="a", init_cfg=dict(type="Pretrained", checkpoint="b")),
            "both checkpoint='a'",
        ),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TimmViT(**options)


def test_pyramid_needs_four_blocks():
    with pytest.raises(ValueError, match=r"out_indices=\(1, 2\) must name 4 blocks"):
        TimmViTPyramid(**SMALL, out_indices=(1, 2))


@pytest.mark.parametrize("patch_size", [8, 16, 14])
def test_pyramid_maps_have_the_strides_of_a_resnet(patch_size):
    adapter = TimmViTPyramid(**SMALL, img_size=patch_size * 4, patch_size=patch_size).eval()
    maps = adapter(torch.randn(1, 3, 100, 65))
    assert [tuple(m.shape) for m in maps] == [(1, 24, 25, 17), (1, 24, 13, 9), (1, 24, 7, 5), (1, 24, 4, 3)]


def test_types_are_found_from_any_scope_without_imports():
    for scope in ("mmengine", "mst_transfer"):
        with MODELS.switch_scope_and_registry(scope) as registry:
            model = registry.build(dict(type="mst_transfer.TimmViT", img_size=32, **SMALL))
        assert isinstance(model, TimmViT)


def test_layer_depth_of_every_parameter():
    adapter = TimmViTPyramid(**SMALL, img_size=32)
    layers = {name: adapter.get_layer_depth(f"backbone.{name}", "backbone.") for name, _ in adapter.named_parameters()}
    assert {count for _, count in layers.values()} == {6}
    for name, (layer, _) in layers.items():
        if name.startswith("vit.blocks."):
            assert layer == int(name.split(".")[2]) + 1
        else:
            assert layer == (5 if name.startswith(("vit.norm", "pyramid")) else 0), name


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (dict(patch_drop_rate=0.5), "patch_drop_rate=0.5 leaves out tokens"),
        (dict(dynamic_img_size=False), "leave it out"),
    ],
)
def test_options_that_leave_no_grid_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        TimmViT(**SMALL, **option)
