"""What ``mst convert --to detectron2`` writes, against what detectron2's ViT computes and how it calls its tensors."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mst_transfer.checkpoint import BackboneMetadata, save_backbone
from mst_transfer.checkpoint.normalisation import IMAGENET_MEAN, IMAGENET_STD
from mst_transfer.export import detectron2_layout
from mst_transfer.export.convert import convert
from mst_transfer.export.source_model import read_source_model

FILE = Path(__file__).parent / "detectron2_vit.safetensors"


@pytest.fixture(scope="module")
def reference():
    """Model, weights and features of the golden file."""
    with safe_open(FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        model = json.loads(file.metadata()["model"])
    weights = {name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")}
    return model, weights, tensors


@pytest.fixture
def original(reference, tmp_path):
    """The golden weights as a backbone of ours, with the class token and last norm that detectron2 does without."""
    model, weights, _ = reference
    options = {name: value for name, value in model.items() if name != "pretrain_img_size"}
    width, side = model["embed_dim"], model["img_size"]
    ones = {"cls_token": torch.ones(1, 1, width), "norm.weight": torch.ones(width), "norm.bias": torch.ones(width)}
    metadata = BackboneMetadata(
        arch="vit_tiny_patch16_224",
        arch_kwargs=options,
        patch_size=model["patch_size"],
        img_size=(side, side),
        embed_dim=width,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        role="teacher",
    )
    save_backbone(tmp_path / "ours.safetensors", weights | ones, metadata)
    return read_source_model(tmp_path / "ours.safetensors")


def test_the_file_holds_detectron2s_tensors_under_its_names(original, reference, tmp_path) -> None:
    convert(original, detectron2_layout.TARGET, tmp_path / "out.pth")
    written = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    _, weights, _ = reference
    assert set(written) == {f"backbone.net.{name}" for name in (*weights, "cls_token", "norm.weight", "norm.bias")}
    for name, tensor in weights.items():
        assert torch.equal(written[f"backbone.net.{name}"], tensor), name


@pytest.mark.parametrize("size", [(32, 32), (40, 48)])
def test_what_it_is_compared_with_is_what_detectron2_computes(original, reference, agree, size) -> None:
    name = f"{size[0]}x{size[1]}"
    image, features = reference[2][f"image/{name}"], reference[2][f"features/{name}"]
    with torch.no_grad():
        tokens = detectron2_layout.without_class_token(original, size).forward_features(image)
    agree(f"detectron2's ViT at {name}", tokens.transpose(1, 2).unflatten(2, features.shape[2:]), features, 1e-5)
