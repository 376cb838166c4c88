"""Folders in the layout of the Hugging Face Hub, against timm and transformers."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from backbones_to_convert import KINDS
from PIL import Image

from mst_transfer.checkpoint import load_backbone
from mst_transfer.export import timm_layout
from mst_transfer.export.convert import convert
from mst_transfer.export.timm_layout import HUGGING_FACE, WEIGHTS


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.mark.parametrize("original", KINDS, indirect=True)
def test_timm_and_transformers_compute_the_same(original, transformers, tmp_path) -> None:
    out = tmp_path / "out"
    agreement = convert(original, HUGGING_FACE, out)
    assert agreement.by.endswith("TimmWrapperModel") and max(agreement.differences.values()) < 1e-5
    image = torch.randn(2, 3, *original.metadata.img_size, generator=torch.Generator().manual_seed(1))
    in_transformers, in_timm = (
        eval(line, {"transformers": transformers, "timm": timm}).eval()
        for line in HUGGING_FACE.usage(original, out).splitlines()
    )
    again = original.model()
    for parameter in again.parameters():
        parameter.data.fill_(7.0)
    load_backbone(again, out / WEIGHTS)
    with torch.no_grad():
        model = original.model()
        features, pooled = model.forward_features(image), model(image)
        found = in_transformers(image)
        torch.testing.assert_close(found.last_hidden_state, features, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.pooler_output, pooled, atol=1e-5, rtol=0)
        torch.testing.assert_close(in_timm(image), pooled, atol=1e-5, rtol=0)
        torch.testing.assert_close(again(image), pooled, atol=1e-5, rtol=0)


def test_an_override_of_the_head_stays_out_of_the_config(original, transformers, tmp_path) -> None:
    """transformers gives timm a ``num_classes`` of its own: a second one would be a TypeError."""
    options = {**original.metadata.arch_kwargs, "num_classes": 0}
    given = replace(original, metadata=replace(original.metadata, arch_kwargs=options))
    convert(given, HUGGING_FACE, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "num_classes" not in config["model_args"] and config["model_args"]["depth"] == 2


def test_the_processor_and_timm_normalise_with_the_checkpoints_mean_and_std(original, transformers, tmp_path) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    changed = replace(original, metadata=replace(original.metadata, mean=mean, std=std))
    convert(changed, HUGGING_FACE, tmp_path / "out")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    np.testing.assert_allclose(found.numpy(), ((pixels / 255 - mean) / std).transpose(2, 0, 1), atol=1e-5)
    config = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path / 'out'}", num_classes=0))
    assert [tuple(config[name]) for name in ("mean", "std", "input_size")] == [mean, std, (3, 32, 32)]


def test_without_transformers_timm_checks(original, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    agreement = convert(original, HUGGING_FACE, tmp_path / "out")
    assert agreement.by == "timm.create_model" and "transformers cannot be imported here" in agreement.remarks[0]


@pytest.mark.parametrize(
    ("changes", "error"), [({"act_layer": "relu"}, "computes other features"), ({"depth": 1}, "Unexpected key")]
)
def test_a_wrong_config_is_caught_and_nothing_is_left(original, changes, error, monkeypatch, tmp_path) -> None:
    right = timm_layout.config_of

    def wrong(original):
        config = right(original)
        return config | {"model_args": config["model_args"] | changes}

    monkeypatch.setattr(timm_layout, "config_of", wrong)
    with pytest.raises((ValueError, RuntimeError), match=error):
        convert(original, HUGGING_FACE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_is_replaced_whole(original, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale.txt").write_text("old")
    with pytest.raises(ValueError, match="exists"):
        convert(original, HUGGING_FACE, tmp_path / "out")
    convert(original, HUGGING_FACE, tmp_path / "out", overwrite=True, dtype="bfloat16")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", WEIGHTS}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "vit.pth"}
