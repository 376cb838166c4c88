"""Layer-wise decay against rates worked out by hand, and against the recipes of MAE and BEiT, written out.

ViTDet's numbers: tests/golden/test_vitdet.py.
"""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mst_transfer.engine.layer_decay import plan_parameters
from mst_transfer.models.backbones.vit import TimmViT, TimmViTPyramid


class Detector(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.backbone = TimmViTPyramid(
            "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=3, **options
        )
        self.head = nn.Linear(24, 2)


# Depth 4: layers 0 (embeddings), 1-4 (blocks), 5 (norm, pyramid, head); rate 0.5, lr 0.8, decay 0.1.
BY_HAND = {
    "backbone.vit.cls_token": (0.025, 0.0),
    "backbone.vit.pos_embed": (0.025, 0.0),
    "backbone.vit.patch_embed.proj.weight": (0.025, 0.1),
    "backbone.vit.patch_embed.proj.bias": (0.025, 0.0),
    "backbone.vit.blocks.0.attn.qkv.weight": (0.05, 0.1),
    "backbone.vit.blocks.0.norm1.weight": (0.05, 0.0),
    "backbone.vit.blocks.1.mlp.fc1.weight": (0.1, 0.1),
    "backbone.vit.blocks.2.mlp.fc1.bias": (0.2, 0.0),
    "backbone.vit.blocks.3.attn.proj.weight": (0.4, 0.1),
    "backbone.vit.norm.weight": (0.8, 0.0),
    "backbone.pyramid.resamplers.0.0.weight": (0.8, 0.1),
    "head.weight": (0.8, 0.1),
    "head.bias": (0.8, 0.0),
}


def build(model, weight_decay=0.1, **paramwise):
    return build_optim_wrapper(
        model,
        dict(
            type="OptimWrapper",
            constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
            paramwise_cfg=dict(layer_decay_rate=0.5) | paramwise,
            optimizer=dict(type="AdamW", lr=0.8, weight_decay=weight_decay),
        ),
    )


def groups_by_name(wrapper):
    return {name: group for group in wrapper.optimizer.param_groups for name in group["param_names"]}


def test_rates_equal_those_worked_out_by_hand():
    groups = groups_by_name(build(Detector()))
    for name, (lr, weight_decay) in BY_HAND.items():
        assert groups[name]["lr"] == pytest.approx(lr), name
        assert groups[name]["weight_decay"] == pytest.approx(weight_decay), name


def test_every_trainable_parameter_is_in_one_group():
    model = Detector(frozen_stages=2)
    wrapper = build(model)
    members = [p for group in wrapper.optimizer.param_groups for p in group["params"]]
    assert len(members) == len({id(p) for p in members})
    assert {id(p) for p in members} == {id(p) for p in model.parameters() if p.requires_grad}
    names = groups_by_name(wrapper)
    assert "backbone.vit.blocks.1.norm1.weight" not in names and "backbone.vit.blocks.2.norm1.weight" in names


def test_custom_keys_multiply_and_the_longest_wins():
    keys = {"head": dict(lr_mult=10.0), "head.bias": dict(lr_mult=3.0), "blocks.0": dict(decay_mult=0.5)}
    groups = groups_by_name(build(Detector(), custom_keys=keys))
    assert groups["head.weight"]["lr"] == pytest.approx(8.0)
    assert groups["head.bias"]["lr"] == pytest.approx(2.4)
    assert groups["backbone.vit.blocks.0.attn.qkv.weight"]["lr"] == pytest.approx(0.05)
    assert groups["backbone.vit.blocks.0.attn.qkv.weight"]["weight_decay"] == pytest.approx(0.05)


def test_backbone_without_layer_depth_is_refused():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Linear without get_layer_depth.*mst_transfer backbone"):
        list(plan_parameters(model, 0.1, 0.1, 0.5))


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
        build(Detector(), **paramwise)


SMALL = dict(img_size=32, patch_size=8, embed_dim=48, depth=5, num_heads=3)
ARCHS = {
    "ViT": ("vit_tiny_patch16_224", {}),
    "DINOv2": ("vit_small_patch14_reg4_dinov2", {}),
    "DINOv3": ("vit_small_patch16_dinov3", {}),
    "EVA-02": ("eva02_tiny_patch14_224", {}),
    "rotations learned": ("vit_small_patch16_rope_mixed_224", {}),
    "BEiT": ("beit_base_patch16_224", {}),
    "BEiT, shared": ("beit_base_patch16_224", dict(use_shared_rel_pos_bias=True, use_rel_pos_bias=False)),
}


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
    name, options = ARCHS[arch]
    model = nn.Module()
    model.backbone = TimmViT(name, **SMALL, **options, frozen_stages=frozen)
    model.head = nn.Linear(48, 2)
    plans = list(plan_parameters(model, 2.0, 0.05, 0.65))
    assert [plan.name for plan in plans] == [name for name, p in model.named_parameters() if p.requires_grad]
    for plan in plans:
        bare = plan.name.removeprefix("backbone.vit.")
        factor, decay = recipe(bare, plan.parameter.shape, 0.65, 0.05, depth=5)
        assert (plan.lr, plan.weight_decay) == pytest.approx((2.0 * factor, decay)), plan.name


def test_pruned_blocks_do_not_count():
    model = nn.Module()
    model.backbone = TimmViT("vit_tiny_patch16_224", **SMALL, out_indices=(2,))
    plans = {plan.name: plan.lr for plan in plan_parameters(model, 1.0, 0.05, 0.5)}
    assert plans["backbone.vit.blocks.2.attn.qkv.weight"] == pytest.approx(0.5)
    assert plans["backbone.vit.patch_embed.proj.weight"] == pytest.approx(0.5**4)
