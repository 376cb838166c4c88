"""Which package may import which: they meet in the checkpoint file alone."""

import subprocess
import sys
from pathlib import Path

import pytest

PRETRAIN_MODULES = (
    "augment backbone build_backbone dataset decoder drawing head hooks loop losses masking model optim pictures "
    "sampler schedules swin train views"
)
SPY = """
import importlib, sys
for name in {modules!r}.split():
    importlib.import_module(name)
print([name for name in sys.modules if name.split('.')[0] in {forbidden!r}])
"""


def loaded(modules: str, forbidden: tuple[str, ...]) -> str:
    code = SPY.format(modules=modules, forbidden=forbidden)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_pretrain_never_imports_the_transfer_side():
    modules = " ".join(f"pretrain.{name}" for name in PRETRAIN_MODULES.split())
    assert loaded(modules, ("mmdet", "mmseg", "mmcv")) == "[]"


@pytest.mark.parametrize("module", ["mst_transfer", "mst_transfer.checkpoint", "mst_transfer.configs.read"])
def test_the_contract_is_light(module):
    assert loaded(module, ("pretrain", "mmdet", "mmseg", "mmcv")) == "[]"


def test_imports_in_the_source(root: Path):
    """pretrain knows of mst_transfer only its doors; mst_transfer knows nothing of pretrain."""
    allowed = (
        "import mst_transfer",
        "from mst_transfer.checkpoint",
        "from mst_transfer.compat",
        "from mst_transfer.configs",
        "from mst_transfer import compat",
    )
    for path in (root / "pretrain").glob("*.py"):
        for line in path.read_text().splitlines():
            if line.startswith(("import mst_transfer", "from mst_transfer")):
                assert line.startswith(allowed), f"{path.name}: {line}"
    for path in (root / "mst_transfer").rglob("*.py"):
        assert "import pretrain" not in path.read_text() and "from pretrain" not in path.read_text(), path
