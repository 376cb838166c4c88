"""The golden values, and the comparison that prints what it has measured."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))  # for golden_files and its like, which scripts import too

from golden_files import read  # noqa: E402


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    """Tensors of ``dino.safetensors``."""
    return read("dino.safetensors")[0]


@pytest.fixture(scope="session")
def golden_texts() -> dict[str, Any]:
    """Names and defaults of ``dino.safetensors``."""
    return read("dino.safetensors")[1]


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
