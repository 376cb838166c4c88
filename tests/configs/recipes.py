"""The shipped configs of detection and segmentation, each read once, and their models without memory."""

import copy
import functools
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mst_transfer.engine.plan.meta_model import build_meta_model

ROOT = Path(__file__).resolve().parents[2]
LEAVES = sorted(
    path.relative_to(ROOT).as_posix() for kind in ("det", "seg") for path in ROOT.glob(f"{kind}_configs/*.py")
)
RECIPES = [name for name in LEAVES if not any(word in name for word in ("sample", "camvid", "mini"))]  # at full scale


@functools.cache
def _read(name: str, data_root: str | None) -> Config:
    return Config.fromfile(ROOT / name)


def read(name: str) -> Config:
    """A config of its own for each test; mmengine takes most of a second to read one."""
    return copy.deepcopy(_read(name, os.environ.get("MST_DATA_ROOT")))


@functools.cache
def full_scale(name: str) -> Any:
    """The model of a config as it is, on the meta device; many tests look at the same one."""
    return build_meta_model(read(name))
