"""A checkpoint on disk."""

import pytest
from small_vit import make_metadata, make_vit

from mst_transfer.checkpoint import save_backbone


@pytest.fixture
def saved(tmp_path):
    """A model and the checkpoint written from it."""
    model = make_vit()
    save_backbone(tmp_path / "teacher.safetensors", model.state_dict(), make_metadata())
    return model, tmp_path / "teacher.safetensors"
