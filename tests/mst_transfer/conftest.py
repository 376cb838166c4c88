"""A checkpoint on disk."""

import sys
from pathlib import Path

import pytest

from mst_transfer.checkpoint import save_backbone

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]  # for small_vit, small_sets and the like


@pytest.fixture
def saved(tmp_path):
    """A model and the checkpoint written from it."""
    from small_vit import make_metadata, make_vit

    model = make_vit()
    save_backbone(tmp_path / "teacher.safetensors", model.state_dict(), make_metadata())
    return model, tmp_path / "teacher.safetensors"
