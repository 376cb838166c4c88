"""The golden values, and the comparison that prints what it has measured."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for dino_inputs and its like, which scripts import too


def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a golden file."""
    with safe_open(HERE / name, framework="pt") as file:
        metadata = {k: json.loads(v) if v[0] in "[{" else v for k, v in file.metadata().items()}
        return {key: file.get_tensor(key) for key in file.keys()}, metadata


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    """Tensors of ``dino.safetensors``."""
    return read("dino.safetensors")[0]


@pytest.fixture(scope="session")
def golden_texts() -> dict[str, Any]:
    """Names and defaults of ``dino.safetensors``."""
    return read("dino.safetensors")[1]


@pytest.fixture(scope="session")
def golden_draws() -> dict[str, Tensor]:
    """Tensors of ``dino_augmentation.safetensors``."""
    return read("dino_augmentation.safetensors")[0]


@pytest.fixture
def agree() -> Callable[..., None]:
    """Asserts that two tensors agree, and prints the largest difference (``pytest tests/golden -rP`` shows it)."""

    def compare(what: str, ours: Tensor, theirs: Tensor, tolerance: float, relative: bool = False) -> None:
        assert ours.shape == theirs.shape, what
        difference = (ours.double() - theirs.double()).abs()
        if relative:
            difference = difference / theirs.double().abs().clamp(min=1e-300)
        largest = difference.max().item()
        kind = "relative" if relative else "absolute"
        print(f"| {what} | {kind} {tolerance:g} | {largest:.1e} |")
        assert largest <= tolerance, f"{what}: largest {kind} difference {largest:.3g}, tolerance {tolerance:g}"

    return compare
