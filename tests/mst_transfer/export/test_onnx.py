"""Graphs, against onnxruntime."""

import sys

import pytest
import torch
from backbones_to_convert import make_original

from mst_transfer.export import onnx_graph
from mst_transfer.export.convert import convert
from mst_transfer.export.onnx_graph import TARGET, OneSize


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.mark.parametrize("kind", ["swin", "registers", "beit", "dinov3"])
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


def test_a_graph_takes_any_batch(original, onnxruntime, tmp_path) -> None:
    agreement = convert(original, TARGET, tmp_path / "out.onnx", size=(40, 48))
    assert list(agreement.differences) == ["40x48, batch 1", "40x48, batch 2"]
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    image = torch.randn(5, 3, 40, 48, generator=torch.Generator().manual_seed(2))
    cls_token, patch_tokens = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        expected = original.model((40, 48)).forward_features(image)
    torch.testing.assert_close(torch.from_numpy(cls_token), expected[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.from_numpy(patch_tokens), expected[:, 1:], atol=1e-4, rtol=0)
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["arch"] == "vit_tiny_patch16_224" and properties["mean"] == "0.485,0.456,0.406"
    assert properties["input_size"] == "40x48" and len(properties["source_sha256"]) == 64


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("swin", (64, 96)), ("beit", None), ("dinov3", (48, 32))])
def test_graphs_of_every_family(kind, size, onnxruntime, tmp_path) -> None:
    agreement = convert(make_original(kind, tmp_path), TARGET, tmp_path / "out.onnx", size=size)
    assert max(agreement.differences.values()) < 1e-4


def test_a_graph_that_computes_something_else_is_caught(original, onnxruntime, monkeypatch, tmp_path) -> None:
    def exchanged(self, image):
        if torch.compiler.is_exporting():
            image = image.flip(2)
        return self.right(image)

    monkeypatch.setattr(OneSize, "right", OneSize.forward, raising=False)
    monkeypatch.setattr(OneSize, "forward", exchanged)
    with pytest.raises(ValueError, match="at 32x32, batch 1: the written file computes other features"):
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
