"""Backbone with windows, pyramid, layer-wise rates and exported files against what detectron2's code gives."""

import make_vitdet as inputs
import pytest
import torch
from dino_inputs import fill
from golden_files import agree, part, read
from torch import nn

from mst_transfer.checkpoint import BackboneMetadata, save_backbone
from mst_transfer.checkpoint.normalisation import IMAGENET_MEAN, IMAGENET_STD
from mst_transfer.engine.layer_decay import LayerDecayOptimWrapperConstructor
from mst_transfer.export import detectron2_layout
from mst_transfer.export.convert import convert
from mst_transfer.export.source_model import read_source_model
from mst_transfer.models.backbones.vit import TimmViT
from mst_transfer.models.necks import SimpleFeaturePyramid

VITDET = read("vitdet.safetensors")[0]
VIT = read("detectron2_vit.safetensors")[0]  # weights, images and features of a plain ViT


@pytest.mark.parametrize("name", inputs.SETTINGS)
def test_backbone(name):
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
    agree(f"{name}: output", output, VITDET[f"{name}/output"], 1e-5)
    (output * inputs.projection_of(name, output)).sum().backward()
    parameters = dict(ours.vit.named_parameters())
    for key in inputs.GRADIENTS:
        agree(f"{name}: gradient of {key}", parameters[key].grad, VITDET[f"{name}/gradient/{key}"], 1e-4)


def test_pyramid():
    pyramid = inputs.fill_pyramid(SimpleFeaturePyramid(inputs.WIDTH, inputs.OUT_CHANNELS))
    grid = inputs.pyramid_input()
    outputs = dict(zip(["p2", "p3", "p4", "p5", "p6"], pyramid([grid]), strict=True))
    for name, output in outputs.items():
        agree(name, output, VITDET[f"pyramid/{name}"], 1e-5)
    sum((output * inputs.projection_of(name, output)).sum() for name, output in outputs.items()).backward()
    agree("gradient of the input", grid.grad, VITDET["pyramid/gradient"], 1e-4)


def test_rates_of_layers():
    model = nn.Module()
    size = dict(img_size=32, embed_dim=12, num_heads=1, mlp_ratio=1)
    model.backbone = TimmViT("vit_tiny_patch16_224", out_indices=(-1,), out_norm="none", window_size=2, **size)
    model.neck = SimpleFeaturePyramid(12, 4)
    model.roi_head = nn.ModuleDict({"bbox_head": nn.ModuleDict({"fc_cls": nn.Linear(4, 3)})})
    optimizer, options = dict(type="AdamW", lr=1.0, weight_decay=0.1), dict(layer_decay_rate=inputs.LR_DECAY_RATE)
    constructor = LayerDecayOptimWrapperConstructor(dict(type="OptimWrapper", optimizer=optimizer), options)
    groups = constructor(model).optimizer.param_groups
    rates = {name: group["lr"] for group in groups for name in group["param_names"]}
    names = [f"backbone.vit.{name}" for name in inputs.LR_NAMES] + list(inputs.LR_NAMES_OUTSIDE)
    assert [rates[name] for name in names] == pytest.approx(VITDET["rates"].tolist())


@pytest.fixture
def original(tmp_path):
    """The golden weights as a backbone of ours, with the class token and last norm that detectron2 does without."""
    options = {name: value for name, value in inputs.VIT.items() if name != "pretrain_img_size"}
    width, side, patch = (options[name] for name in ("embed_dim", "img_size", "patch_size"))
    ones = {"cls_token": torch.ones(1, 1, width), "norm.weight": torch.ones(width), "norm.bias": torch.ones(width)}
    metadata = BackboneMetadata(
        "vit_tiny_patch16_224", options, patch, (side, side), width, IMAGENET_MEAN, IMAGENET_STD, role="teacher"
    )
    save_backbone(tmp_path / "ours.safetensors", part(VIT, "weights/") | ones, metadata)
    return read_source_model(tmp_path / "ours.safetensors")


def test_the_file_holds_detectron2s_tensors_under_its_names(original, tmp_path) -> None:
    convert(original, detectron2_layout.TARGET, tmp_path / "out.pth")
    written = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    weights = part(VIT, "weights/")
    assert set(written) == {f"backbone.net.{name}" for name in (*weights, "cls_token", "norm.weight", "norm.bias")}
    for name, tensor in weights.items():
        assert torch.equal(written[f"backbone.net.{name}"], tensor), name


@pytest.mark.parametrize("size", inputs.VIT_SIZES)
def test_what_it_is_compared_with_is_what_detectron2_computes(original, size) -> None:
    name = f"{size[0]}x{size[1]}"
    image, features = VIT[f"image/{name}"], VIT[f"features/{name}"]
    with torch.no_grad():
        tokens = detectron2_layout.without_class_token(original, size).forward_features(image)
    agree(f"detectron2's ViT at {name}", tokens.transpose(1, 2).unflatten(2, features.shape[2:]), features, 1e-5)
