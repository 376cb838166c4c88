"""Layer decay against the published recipes of MAE (util/lr_decay.py) and BEiT (beit/optim_factory.py), written out.

Both give a parameter of layer k of n the factor ``rate ** (n - k)``; ViTDet's numbers: tests/golden/test_vitdet.py.
"""

import pytest
from torch import nn

from mst_transfer.engine.layer_decay import plan_parameters
from mst_transfer.models.backbones.vit import TimmViT

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
    """Factor and weight decay of a parameter of a network with ``depth`` blocks."""
    last = depth + 1
    if name.startswith(
        ("cls_token", "pos_embed", "patch_embed", "reg_token", "rope")
    ):  # the last two: neither has them
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
