"""Backbone with windows, simple feature pyramid and layer-wise rates against what detectron2's ViTDet gives."""

from pathlib import Path

import pytest
import torch
import vitdet_inputs as inputs
from dino_inputs import fill, normal
from safetensors.torch import load_file
from torch import nn

from mst_transfer.engine.layer_decay import plan_parameters
from mst_transfer.models.backbones.vit import TimmViT
from mst_transfer.models.necks import SimpleFeaturePyramid


@pytest.fixture(scope="module")
def vitdet():
    return load_file(Path(__file__).parent / "vitdet.safetensors")


@pytest.mark.parametrize("name", inputs.SETTINGS)
def test_backbone(name, vitdet, agree):
    setting = inputs.SETTINGS[name]
    options: dict = dict(window_size=setting.window_size, global_blocks=setting.global_blocks)
    if not setting.window_size:
        options = dict(class_token=False, global_pool="avg")
    if not setting.positions:
        options["pos_embed"] = "none"
    ours = TimmViT(
        "vit_tiny_patch16_224",
        img_size=inputs.SIDE,
        patch_size=inputs.PATCH,
        embed_dim=inputs.WIDTH,
        depth=inputs.DEPTH,
        num_heads=inputs.HEADS,
        out_indices=(-1,),
        out_norm="none",
        **options,
    )
    ours.vit.load_state_dict(fill(ours.vit.state_dict()))
    (output,) = ours(inputs.image_of(setting))
    agree(f"{name}: output", output, vitdet[f"{name}/output"], 1e-5)
    (output * inputs.projection_of(name, output)).sum().backward()
    parameters = dict(ours.vit.named_parameters())
    for key in inputs.GRADIENTS:
        agree(f"{name}: gradient of {key}", parameters[key].grad, vitdet[f"{name}/gradient/{key}"], 1e-4)


def test_pyramid(vitdet, agree):
    pyramid = SimpleFeaturePyramid(inputs.WIDTH, inputs.OUT_CHANNELS)
    with torch.no_grad():
        for number, parameter in enumerate(pyramid.parameters()):
            parameter.copy_(0.3 * normal(f"pyramid {number}", *parameter.shape) + (parameter.ndim == 1))
    grid = normal("pyramid input", *inputs.PYRAMID_SHAPE).requires_grad_()
    outputs = dict(zip(["p2", "p3", "p4", "p5", "p6"], pyramid([grid]), strict=True))
    for name, output in outputs.items():
        agree(name, output, vitdet[f"pyramid/{name}"], 1e-5)
    sum((output * inputs.projection_of(name, output)).sum() for name, output in outputs.items()).backward()
    agree("gradient of the input", grid.grad, vitdet["pyramid/gradient"], 1e-4)


def test_rates_of_layers(vitdet):
    model = nn.Module()
    size = dict(img_size=32, embed_dim=12, num_heads=1, mlp_ratio=1)
    model.backbone = TimmViT("vit_tiny_patch16_224", out_indices=(-1,), out_norm="none", window_size=2, **size)
    model.neck = SimpleFeaturePyramid(12, 4)
    model.roi_head = nn.ModuleDict({"bbox_head": nn.ModuleDict({"fc_cls": nn.Linear(4, 3)})})
    plans = {plan.name: plan.lr for plan in plan_parameters(model, 1.0, 0.1, inputs.LR_DECAY_RATE)}
    names = [f"backbone.vit.{name}" for name in inputs.LR_NAMES] + list(inputs.LR_NAMES_OUTSIDE)
    assert [plans[name] for name in names] == pytest.approx(vitdet["rates"].tolist())
