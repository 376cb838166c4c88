"""Backbones to convert."""

import pytest
from backbones_to_convert import make_original


@pytest.fixture
def original(tmp_path, request):
    """A random backbone, read from a file of foreign names; the parameter chooses its kind (default: a plain ViT)."""
    return make_original(getattr(request, "param", "vit"), tmp_path)
