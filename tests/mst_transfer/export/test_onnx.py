"""Graphs, against onnxruntime."""

import sys
from dataclasses import replace

import pytest
import torch
from backbones_to_convert import make_original

from mst_transfer.checkpoint.pos_embed import resample_pos_embed
from mst_transfer.export import graph_models, onnx_graph
from mst_transfer.export.convert import convert
from mst_transfer.export.graph_models import AnySizeViT, OneSize, dino_weights
from mst_transfer.export.onnx_graph import TARGET


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.mark.parametrize("new", [(1, 1), (3, 5), (4, 5), (4, 3), (7, 2), (40, 3)])
def test_dinos_resampling_as_matrices(new) -> None:
    grid = torch.randn(1, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    expected = resample_pos_embed(grid.flatten(1, 2), new, (4, 3), 0, "dino").unflatten(1, new)
    rows, columns = dino_weights(new, (4, 3))
    found = torch.einsum("hr,brcd,wc->bhwd", rows, grid, columns)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("interpolation", ["timm", "dino"])
@pytest.mark.parametrize("kind", ["vit", "registers", "distilled"])
@pytest.mark.parametrize("size", [(32, 32), (16, 64), (40, 48), (32, 40)])
def test_the_module_that_is_exported_is_the_original(kind, interpolation, size, tmp_path) -> None:
    original = make_original(kind, tmp_path)
    original = replace(original, metadata=replace(original.metadata, pos_embed_interpolation=interpolation))
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        cls_token, patch_tokens = AnySizeViT(original.model(), interpolation)(image)
        expected = original.model(size).forward_features(image)
    torch.testing.assert_close(cls_token, expected[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(patch_tokens, expected[:, -patch_tokens.shape[1] :], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["swin", "beit", "dinov3"])
def test_the_modules_of_one_size_are_the_original(kind, tmp_path) -> None:
    original = make_original(kind, tmp_path)
    image = torch.randn(2, 3, *original.metadata.img_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, every = OneSize(original.model())(image)
        expected = original.model().forward_features(image)
    if kind == "swin":
        torch.testing.assert_close(every, expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)
        torch.testing.assert_close(one, expected.mean((1, 2)), atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(one, expected[:, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(every, expected[:, -every.shape[1] :], atol=1e-5, rtol=0)


def test_a_graph_takes_any_size_and_batch(original, onnxruntime, tmp_path) -> None:
    dino = replace(original, metadata=replace(original.metadata, pos_embed_interpolation="dino"))
    agreement = convert(dino, TARGET, tmp_path / "out.onnx", with_normalisation=True)
    assert {"32x32, batch 1", "40x48, batch 3"} <= set(agreement.differences)
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (dino.metadata.mean, dino.metadata.std))
    for batch, size in ((1, (16, 72)), (4, (64, 8))):
        pixels = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
        cls_token, patch_tokens = session.run(None, {"image": pixels.numpy()})
        with torch.no_grad():
            expected = dino.model(size).forward_features((pixels / 255 - mean) / std)
        torch.testing.assert_close(torch.from_numpy(cls_token), expected[:, 0], atol=1e-4, rtol=0)
        torch.testing.assert_close(torch.from_numpy(patch_tokens), expected[:, 1:], atol=1e-4, rtol=0)
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["arch"] == "vit_tiny_patch16_224" and properties["mean"] == "0.485,0.456,0.406"
    assert properties["input"].startswith("RGB, uint8") and len(properties["source_sha256"]) == 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size"), [("swin", (64, 96)), ("beit", None), ("dinov3", (48, 32)), ("registers", None)]
)
def test_graphs_of_every_family(kind, size, onnxruntime, tmp_path) -> None:
    original = make_original(kind, tmp_path)
    agreement = convert(original, TARGET, tmp_path / "out.onnx", size=size)
    assert max(agreement.differences.values()) < 1e-4
    assert any("only: two batch sizes" in remark for remark in agreement.remarks) == (kind != "registers")


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_caught(original, onnxruntime, monkeypatch, tmp_path) -> None:
    def exchanged(self, grid, h, w):
        return self.right(grid, w, h)

    monkeypatch.setattr(graph_models.AnySizeViT, "right", graph_models.AnySizeViT._resample, raising=False)
    monkeypatch.setattr(graph_models.AnySizeViT, "_resample", exchanged)
    with pytest.raises(ValueError, match="at 40x48, batch 1: the written file computes other features"):
        convert(original, TARGET, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_missing_packages_are_named_with_the_command(original, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"onnxruntime not installed, .*pip install 'mst-transfer\[export\]'"):
        convert(original, TARGET, tmp_path / "out.onnx")


def test_arguments_that_a_graph_cannot_have_are_refused(original, onnxruntime, monkeypatch, tmp_path) -> None:
    with pytest.raises(ValueError, match="dtype is for files of weights"):
        convert(original, TARGET, tmp_path / "out.onnx", dtype="float16")
    with pytest.raises(ValueError, match="size=30x32: both sides must be multiples of the patch, 8"):
        convert(original, TARGET, tmp_path / "out.onnx", size=(30, 32))
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="one file of ONNX holds 2"):
        convert(original, TARGET, tmp_path / "out.onnx")
