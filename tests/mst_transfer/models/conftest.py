"""What the backbones log."""

import pytest

from mst_transfer.models.backbones import adapter, vit_create


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines logged by the backbones from now on."""
    texts: list[str] = []
    for module in (adapter, vit_create):
        monkeypatch.setattr(module, "print_log", lambda text, **_: texts.append(text))
    return texts
