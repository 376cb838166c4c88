"""Swin checkpoints as other projects' code writes them, with the maps that it computes (``golden/make_swin.py``)."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "golden"
PROJECTS = ("official", "moby", "simmim", "mmpretrain", "transformers")


@dataclass(frozen=True)
class GoldenSwin:
    """One file.

    Attributes:
        source: name of the naming scheme.
        arch: for ``timm.create_model``, with ``arch_kwargs``.
        checkpoint: all tensors under dotted names.
        image: [2, 3, 64, 64].
        maps: by role, ``stage_0`` … ``stage_3`` and ``features``, [B, channels, rows, columns].
    """

    source: str
    arch: str
    arch_kwargs: dict
    checkpoint: dict[str, Tensor]
    image: Tensor
    maps: dict[str, dict[str, Tensor]]

    def save(self, path: Path) -> Path:
        """Writes the checkpoint as its project does: the first part of a name is a dictionary's key."""
        content: dict = {"epoch": 3}
        for name, tensor in self.checkpoint.items():
            outer, _, inner = name.partition(".")
            if outer in ("model", "state_dict"):
                content.setdefault(outer, {})[inner] = tensor
            else:
                content[name] = tensor
        torch.save(content, path)
        return path


@cache
def golden_swin(project: str) -> GoldenSwin:
    """Reads one file; what it holds is shared, so change copies only."""
    with safe_open(FOLDER / f"swin_{project}.safetensors", framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(metadata["arch_kwargs"]).items()}
    roles = [role for role in ("teacher", "student") if under(f"{role}/")]
    maps = {role: under(f"{role}/") for role in roles}
    return GoldenSwin(metadata["source"], metadata["arch"], kwargs, under("checkpoint/"), tensors["image"], maps)
