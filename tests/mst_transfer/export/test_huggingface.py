"""Folders for transformers, against transformers."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from backbones_to_convert import make_original
from PIL import Image

from mst_transfer.checkpoint import load_backbone
from mst_transfer.export import huggingface_layout
from mst_transfer.export.convert import convert
from mst_transfer.export.huggingface_layout import TARGET, WEIGHTS

CLASSES = {
    "vit": "ViTModel",
    "layer_scale": "Dinov2Model",
    "swiglu": "Dinov2Model",
    "registers": "Dinov2WithRegistersModel",
    "beit": "BeitModel",
    "beit_fc_norm": "BeitModel",
    "swin": "SwinModel",
}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.mark.parametrize("original", CLASSES, indirect=True)
def test_transformers_computes_the_same(original, transformers, request, tmp_path) -> None:
    kind = request.node.callspec.params["original"]
    agreement = convert(original, TARGET, tmp_path / "out")
    assert agreement.by.endswith(CLASSES[kind])
    model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    assert type(model).__name__ == CLASSES[kind]
    image = torch.randn(2, 3, *original.metadata.img_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = original.model().forward_features(image)
        found = model(image).last_hidden_state
    torch.testing.assert_close(found, expected.flatten(1, -2), atol=1e-5, rtol=0)
    again = original.model()
    for parameter in again.parameters():
        parameter.data.fill_(7.0)
    load_backbone(again, tmp_path / "out" / WEIGHTS)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, original.tensors[name]), name


@pytest.mark.parametrize("original", ["beit_fc_norm", "beit", "swin"], indirect=True)
def test_what_is_pooled_is_timms_and_no_remark_warns_of_it(original, transformers, tmp_path) -> None:
    agreement = convert(original, TARGET, tmp_path / "out")
    assert not any("pooler_output" in remark for remark in agreement.remarks)
    image = torch.randn(2, 3, *original.metadata.img_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model = original.model()
        pooled = "fc_norm.weight" in original.tensors or not hasattr(model, "cls_token")
        expected = model(image) if pooled else model.forward_features(image)[:, 0]
        found = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()(image).pooler_output
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_processor_normalises_with_the_checkpoints_mean_and_std(original, transformers, tmp_path) -> None:
    changed = replace(original, metadata=replace(original.metadata, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    convert(changed, TARGET, tmp_path / "out")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    expected = (pixels / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.4, 0.5, 0.6])
    np.testing.assert_allclose(found.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_half_precision_is_what_the_config_says(original, transformers, tmp_path) -> None:
    convert(original, TARGET, tmp_path / "out", dtype="bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_without_transformers_our_reader_checks(original, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    agreement = convert(original, TARGET, tmp_path / "out")
    assert "reader" in agreement.by and "transformers cannot be imported here" in agreement.remarks[0]


def test_exchanged_queries_and_keys_are_caught(original, transformers, monkeypatch, tmp_path) -> None:
    whole = huggingface_layout.split_qkv
    monkeypatch.setattr(huggingface_layout, "split_qkv", lambda tensors, q, k, v: whole(tensors, k, q, v))
    with pytest.raises(ValueError, match="reader gets 4 of .* first blocks.0.attn.qkv.weight"):
        convert(original, TARGET, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(huggingface_layout, "read_back", lambda original, path: original)
    with pytest.raises(ValueError, match="computes other features"):
        convert(original, TARGET, tmp_path / "out")


def test_a_wrong_epsilon_is_caught(original, transformers, monkeypatch, tmp_path) -> None:
    right = huggingface_layout.config_of
    monkeypatch.setattr(huggingface_layout, "config_of", lambda original: right(original) | {"layer_norm_eps": 1e-2})
    with pytest.raises(ValueError, match="computes other features"):
        convert(original, TARGET, tmp_path / "out")


def test_what_transformers_cannot_compute_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="Eva cannot be written for transformers"):
        convert(make_original("dinov3", tmp_path), TARGET, tmp_path / "out")
    with pytest.raises(ValueError, match="fc_norm"):
        convert(make_original("fc_norm", tmp_path), TARGET, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_is_replaced_whole(original, transformers, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale.txt").write_text("old")
    with pytest.raises(ValueError, match="exists"):
        convert(original, TARGET, tmp_path / "out")
    convert(original, TARGET, tmp_path / "out", overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "preprocessor_config.json", WEIGHTS}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "vit.pth"}
