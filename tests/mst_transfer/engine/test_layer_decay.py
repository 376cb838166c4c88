"""Layer-wise decay against the recipes of MAE and BEiT, written out; ViTDet's numbers: tests/golden/test_vitdet.py."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mst_transfer.models.backbones.vit import TimmViT, TimmViTPyramid

SMALL = dict(img_size=32, patch_size=8, embed_dim=48, depth=5, num_heads=3)
ARCHS = {
    "ViT": ("vit_tiny_patch16_224", {}),
    "pyramid": ("vit_tiny_patch16_224", {}),
    "DINOv2": ("vit_small_patch14_reg4_dinov2", {}),
    "DINOv3": ("vit_small_patch16_dinov3", {}),
    "EVA-02": ("eva02_tiny_patch14_224", {}),
    "rotations learned": ("vit_small_patch16_rope_mixed_224", {}),
    "BEiT": ("beit_base_patch16_224", {}),
    "BEiT, shared": ("beit_base_patch16_224", dict(use_shared_rel_pos_bias=True, use_rel_pos_bias=False)),
}


def small_model(arch="ViT", **options):
    name, changes = ARCHS[arch]
    model = nn.Module()
    model.backbone = (TimmViTPyramid if arch == "pyramid" else TimmViT)(name, **SMALL, **changes, **options)
    model.head = nn.Linear(48, 2)
    return model


def groups_by_name(model, weight_decay=0.1, **paramwise):
    """The group of every parameter that the optimizer has; none is in two."""
    cfg = dict(
        type="OptimWrapper",
        constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
        paramwise_cfg=dict(layer_decay_rate=0.5) | paramwise,
        optimizer=dict(type="AdamW", lr=0.8, weight_decay=weight_decay),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    members = [(names[id(parameter)], group) for group in groups for parameter in group["params"]]
    assert len(members) == len(dict(members))
    return dict(members)


def recipe(name: str, shape: tuple[int, ...], rate: float, decay: float, depth: int) -> tuple[float, float]:
    """Factor and weight decay of a parameter, as in MAE's util/lr_decay.py and BEiT's beit/optim_factory.py.

    Both give a parameter of layer k of n the factor ``rate ** (n - k)``.
    """
    last = depth + 1
    if name.startswith(("cls_token", "pos_embed", "patch_embed", "reg_token", "rope")):  # the last two: neither has
        layer = 0
    elif name.startswith("blocks"):
        layer = int(name.split(".")[1]) + 1
    else:  # BEiT's shared table too: startswith("rel_pos_bias") is the last layer
        layer = last
    skipped = ("cls_token", "pos_embed", "reg_token")
    undecayed = len(shape) == 1 or name.endswith(".bias") or name in skipped or "relative_position_bias_table" in name
    undecayed = undecayed or name.startswith("rope")
    return rate ** (last - layer), 0.0 if undecayed else decay


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("frozen", [-1, 2])
def test_factors_and_decays(arch, frozen):
    model = small_model(arch, frozen_stages=frozen)
    groups = groups_by_name(model)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert groups.keys() == trained.keys()
    assert ("backbone.vit.blocks.1.norm1.weight" in groups) == (frozen < 0)
    for name, group in groups.items():
        factor, decay = recipe(name.removeprefix("backbone.vit."), trained[name].shape, 0.5, 0.1, depth=5)
        assert (group["lr"], group["weight_decay"]) == pytest.approx((0.8 * factor, decay)), name


def test_custom_keys_multiply_and_the_longest_wins():
    keys = {"head": dict(lr_mult=10.0), "head.bias": dict(lr_mult=3.0), "blocks.0": dict(decay_mult=0.5)}
    groups = groups_by_name(small_model(), custom_keys=keys)
    assert (groups["head.weight"]["lr"], groups["head.bias"]["lr"]) == pytest.approx((8.0, 2.4))
    block = groups["backbone.vit.blocks.0.attn.qkv.weight"]
    assert (block["lr"], block["weight_decay"]) == pytest.approx((0.025, 0.05))


def test_backbone_without_layer_depth_is_refused():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Linear without get_layer_depth.*mst_transfer backbone"):
        groups_by_name(model)


@pytest.mark.parametrize(
    ("paramwise", "message"),
    [
        (dict(layer_decay_rate=1.5), r"layer_decay_rate=1.5 must be in \(0, 1\]"),
        (dict(layer_decay_rate=None), r"layer_decay_rate=None must be in"),
        (dict(norm_decay_mult=0.0), r"unknown options \['norm_decay_mult'\]; allowed"),
        (dict(custom_keys={"head": dict(lr=1)}), "allowed options are"),
        (dict(weight_decay=None), "weight_decay=None must be given"),
    ],
)
def test_wrong_options_are_refused(paramwise, message):
    with pytest.raises(ValueError, match=message):
        groups_by_name(small_model(), **paramwise)


def test_pruned_blocks_do_not_count():
    groups = groups_by_name(small_model(out_indices=(2,)))
    assert groups["backbone.vit.blocks.2.attn.qkv.weight"]["lr"] == pytest.approx(0.8 * 0.5)
    assert groups["backbone.vit.patch_embed.proj.weight"]["lr"] == pytest.approx(0.8 * 0.5**4)
