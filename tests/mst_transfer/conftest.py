"""A checkpoint on disk."""

import sys
from pathlib import Path

import pytest

from mst_transfer.checkpoint import save_backbone

sys.path.insert(0, str(Path(__file__).parent))  # for small_vit


@pytest.fixture
def saved(tmp_path):
    """A model and the checkpoint written from it."""
    from small_vit import make_metadata, make_vit

    model = make_vit()
    save_backbone(tmp_path / "teacher.safetensors", model.state_dict(), make_metadata())
    return model, tmp_path / "teacher.safetensors"
