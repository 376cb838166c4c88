"""A checkpoint on disk, and a file that only harm would write."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, fake_hub
from small_vit import make_metadata, make_vit

from mst_transfer.checkpoint import save_backbone


@pytest.fixture
def saved(tmp_path):
    """A model and the checkpoint written from it."""
    model = make_vit()
    save_backbone(tmp_path / "teacher.safetensors", model.state_dict(), make_metadata())
    return model, tmp_path / "teacher.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub in a thread, with a cache that is empty."""
    with fake_hub(tmp_path / "home", monkeypatch) as one:
        yield one


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A path that must not exist when the test ends."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code of the file was run"
