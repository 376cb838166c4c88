"""Fixtures and options of all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The small real image sets coco_mini, camvid and photos; the test is skipped where they are not."""
    folder = Path(os.environ.get("MST_TEST_DATA", ROOT.parent / "shared" / "data"))
    missing = [name for name in ("coco_mini", "camvid", "photos") if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {folder}; MST_TEST_DATA names another folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``cuda`` show as skipped, with the reason, where torch sees no GPU."""
    if not any(item.get_closest_marker("cuda") for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason=f"needs a CUDA device; torch {torch.__version__} sees none")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)
