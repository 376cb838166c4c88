"""Backbones to convert."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for backbones_to_convert


@pytest.fixture
def original(tmp_path, request):
    """A random backbone, read from a file of foreign names; the parameter chooses its kind (default: a plain ViT)."""
    from backbones_to_convert import make_original

    return make_original(getattr(request, "param", "vit"), tmp_path)
