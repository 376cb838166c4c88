"""The adapters' features equal timm's own on the same weights; pruning, freezing, loading and refusals."""

import pytest
import torch
import torch.nn.functional as F

from mst_transfer.models.backbones.vit import TimmViT, TimmViTPyramid

SMALL = dict(arch="vit_tiny_patch16_224", embed_dim=24, depth=4, num_heads=3)


@pytest.mark.parametrize("out_norm", ["all", "last", "none"])
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 2)])
def test_features_equal_a_plain_loop_over_the_blocks(out_norm, out_indices):
    adapter = TimmViT(**SMALL, img_size=(32, 48), patch_size=8, out_norm=out_norm, out_indices=out_indices).eval()
    image = torch.randn(2, 3, 32, 48)
    vit = adapter.vit
    tokens = F.conv2d(image, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, stride=8)
    tokens = tokens.flatten(2).transpose(1, 2)  # [B, 24, D]
    tokens = torch.cat([vit.cls_token.expand(2, 1, -1), tokens], dim=1) + vit.pos_embed
    expected = []
    for index, block in enumerate(vit.blocks):
        tokens = block(tokens)
        if index in out_indices:
            expected.append(vit.norm(tokens) if out_norm == "all" or (out_norm, index) == ("last", 3) else tokens)
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


@pytest.mark.parametrize(("stages", "trained_blocks"), [(-1, 4), (0, 4), (3, 1), ("all", 0)])
def test_frozen_stages(stages, trained_blocks):
    """``all`` leaves nothing to train: the last norm would change the features of what is called frozen."""
    adapter = TimmViT(**SMALL, img_size=32, frozen_stages=stages, drop_path_rate=0.5).train()
    trainable = {name for name, p in adapter.named_parameters() if p.requires_grad}
    assert len({name.split(".")[2] for name in trainable if name.startswith("vit.blocks.")}) == trained_blocks
    assert ("vit.pos_embed" in trainable) == ("vit.patch_embed.proj.weight" in trainable) == (stages == -1)
    assert bool(trainable) == (stages != "all")
    assert [block.training for block in adapter.vit.blocks].count(True) == trained_blocks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="vit_smal_patch16"), "arch='vit_smal_patch16' is not a timm model; near names:.*vit_small_patch16"),
        (dict(arch="resnet18"), "resnet18"),
        (dict(depht=3), "depht"),
        (dict(out_indices=(3, 1)), r"out_indices=\(3, 1\) must increase within 0 … 11"),
        (dict(out_indices=(12,)), "must increase within 0 … 11"),
        (dict(out_norm="first"), "out_norm='first' is not one of"),
        (dict(pos_embed_interpolation="dyno"), "interpolation='dyno' is not supported"),
        (dict(frozen_stages=13), "frozen_stages=13 is not in -1 … 12"),
        (dict(depth=3), "depth=3: give out_indices"),
        (dict(init_cfg=dict(type="Constant", val=0)), "init_cfg"),
        (dict(checkpoint="a", init_cfg=dict(type="Pretrained", checkpoint="b")), "both checkpoint='a'"),
        (dict(arch="swin_tiny_patch4_window7_224"), "swin_transformer is not supported.*mst_transfer.TimmSwin"),
        (dict(arch="vit_base_r50_s16_224"), "vision_transformer_hybrid is not supported"),
        (dict(arch="vit_pe_spatial_tiny_patch16_512"), "has no final norm; pass out_norm='none'"),
        (dict(arch="vit_base_patch16_rpn_224", window_size=4), r"not supported for blocks of \['ResPostBlock'\]"),
        (dict(window_size=-1), "window_size=-1 must be 0"),
        (dict(global_blocks=(1,)), r"global_blocks=\(1,\) has no effect"),
        (dict(window_size=4, out_indices=(3,), global_blocks=(5,)), "must increase within 0 … 3"),
        (dict(num_classes=7), "num_classes=7 gives the backbone a classifier"),
        (dict(arch=None), "arch=None takes the architecture from a checkpoint"),
        (dict(patch_drop_rate=0.5), "patch_drop_rate=0.5 leaves out tokens"),
        (dict(dynamic_img_size=False), "leave it out"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TimmViT(**dict(arch="vit_tiny_patch16_224") | options)


def test_pyramid_needs_four_blocks():
    with pytest.raises(ValueError, match=r"out_indices=\(1, 2\) must name 4 blocks"):
        TimmViTPyramid(**SMALL, out_indices=(1, 2))


def test_layer_depth_of_every_parameter():
    adapter = TimmViTPyramid(**SMALL, img_size=32)
    layers = {name: adapter.get_layer_depth(f"backbone.{name}", "backbone.") for name, _ in adapter.named_parameters()}
    assert {count for _, count in layers.values()} == {6}
    for name, (layer, _) in layers.items():
        if name.startswith("vit.blocks."):
            assert layer == int(name.split(".")[2]) + 1
        else:
            assert layer == (5 if name.startswith(("vit.norm", "pyramid")) else 0), name
