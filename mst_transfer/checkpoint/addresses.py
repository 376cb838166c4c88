"""Checkpoints by address: ``zoo://NAME``, made by this project and part of it, and ``hf://ORG/REPO``."""

import json
from pathlib import Path
from typing import Any

from mst_transfer.checkpoint import hf_hub

ZOO = Path(__file__).resolve().parent.parent / "zoo"
_SCHEME = "zoo:/"  # pathlib makes one slash of two


def is_address(path: str | Path) -> bool:
    """Whether a checkpoint is given by an address that ``fetch`` knows."""
    return str(path).startswith(_SCHEME) or hf_hub.is_hub_address(path)


def fetch(address: str) -> tuple[Path, str]:
    """The file of an address, and its full address: of the hub with file and commit.

    Raises:
        ValueError: the zoo has no such file; says which. Of the hub: see ``hf_hub.fetch``.
    """
    if not address.startswith(_SCHEME):
        return hf_hub.fetch(address)
    name = address.removeprefix(_SCHEME).lstrip("/")
    zoo_card(name)
    return ZOO / f"{name}.safetensors", f"zoo://{name}"


def zoo_names() -> list[str]:
    """What the zoo has, by name."""
    return sorted(path.stem for path in ZOO.glob("*.json"))


def zoo_card(name: str) -> dict[str, Any]:
    """What is known of a file of the zoo: how it was made, and its figures. ValueError: there is none of that name."""
    if name not in (known := zoo_names()):
        raise ValueError(f"zoo://{name}: the zoo has {', '.join(known)}")
    card: dict[str, Any] = json.loads((ZOO / f"{name}.json").read_text(encoding="utf-8"))
    return card
