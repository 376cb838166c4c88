"""Swin checkpoints as other projects' code writes them, with the maps that it computes (``golden/make_swin.py``)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from golden_files import part, read
from torch import Tensor

PROJECTS = ("official", "moby", "simmim", "mmpretrain", "transformers")


@dataclass(frozen=True)
class GoldenSwin:
    """One file."""

    source: str  # name of the naming scheme
    arch: str  # for timm.create_model
    arch_kwargs: dict
    checkpoint: dict[str, Tensor]  # all tensors under dotted names
    image: Tensor  # [2, 3, 64, 64]
    maps: dict[str, dict[str, Tensor]]  # by role, stage_0 … stage_3 and features, [B, channels, rows, columns]

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
    tensors, metadata = read(f"swin_{project}.safetensors")
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in metadata["arch_kwargs"].items()}
    roles = [role for role in ("teacher", "student") if part(tensors, f"{role}/")]
    maps = {role: part(tensors, f"{role}/") for role in roles}
    checkpoint = part(tensors, "checkpoint/")
    return GoldenSwin(metadata["source"], metadata["arch"], kwargs, checkpoint, tensors["image"], maps)
