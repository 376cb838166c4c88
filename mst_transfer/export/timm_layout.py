"""timm: ``timm.create_model(arch, checkpoint_path=FILE)``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from mst_transfer.export.original import Original
from mst_transfer.export.resampling import as_timm, resampling_remark
from mst_transfer.export.target import Options, Target
from mst_transfer.export.verify import Agreement, compare_at, features, read_back, two_sizes


def write(original: Original, path: Path, options: Options) -> None:
    """Writes the tensors under timm's names, as safetensors or with ``torch.save``."""
    tensors = {name: tensor.contiguous() for name, tensor in original.tensors.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"format": "pt", "mst_transfer": json.dumps(original.metadata.to_strings())})
    else:
        torch.save(tensors, path)


def create(original: Original, path: Path) -> Any:
    """What a user does with the file."""
    arguments = {"num_classes": 0, **original.metadata.arch_kwargs}
    return timm.create_model(original.metadata.arch, checkpoint_path=str(path), **arguments).eval()


def verify(original: Original, path: Path, options: Options) -> Agreement:
    """Loads the file with timm, also at another size; timm itself checks that no tensor is missing or left over."""
    sizes = two_sizes(original)

    def found(size: tuple[int, int], image: torch.Tensor) -> torch.Tensor:
        model = create(original, path)
        if size != original.metadata.img_size:
            original.resize(model, size)
        return features(model, image)

    differences = compare_at(sizes, lambda size, image: features(original.model(size, as_timm), image), found)
    read_back(original, path)
    return Agreement("timm.create_model", differences, resampling_remark(original, sizes[1], as_timm, "timm"))


def usage(original: Original, path: Path) -> str:
    """Python that loads the file."""
    options = "".join(f", {name}={value!r}" for name, value in original.metadata.arch_kwargs.items())
    classes = "" if "num_classes" in original.metadata.arch_kwargs else ", num_classes=0"
    return f'timm.create_model("{original.metadata.arch}"{classes}{options}, checkpoint_path="{path}")'


TARGET = Target("timm", (".safetensors", ".pth"), "timm.create_model(…, checkpoint_path=OUT)", write, verify, usage)
