"""A pre-training step's forward pass under CUDA's autocast, without a GPU: devices agree, and the number formats."""

import json
from pathlib import Path

import pytest
from simulated import run


@pytest.mark.parametrize("kind", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_forward_pass_under_cudas_autocast(kind: str) -> None:
    found = json.loads(run(str(Path(__file__).parent / "fake_cuda_pass.py"), kind).splitlines()[-1])
    assert set(map(tuple, found["losses"].values())) == {("torch.float32", "cuda")}
    assert found["features"] == ["torch.float32", "torch.float32"]
    formats = found["formats"]
    products = [name for name in formats if name.endswith((".qkv", ".proj", ".fc1", ".fc2")) or ".stages." in name]
    assert products and {formats[name] for name in products} == {"bfloat16"}
    assert formats["student.head.last_layer"] == formats["teacher.head.last_layer"] == "float32"
    assert formats["decoder"] == "bfloat16"  # up-sampling too: in float32 it would take twice the memory
