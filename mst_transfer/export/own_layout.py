"""Our own layout: a backbone checkpoint with metadata (:mod:`mst_transfer.checkpoint`)."""

from __future__ import annotations

from pathlib import Path

from mst_transfer.checkpoint import save_backbone
from mst_transfer.export.errors import ConversionError
from mst_transfer.export.original import Original, read_original
from mst_transfer.export.target import Options, Target
from mst_transfer.export.verify import Agreement, compare_at, features, read_back, two_sizes


def write(original: Original, path: Path, options: Options) -> None:
    """Writes tensors and metadata."""
    save_backbone(path, original.tensors, original.metadata)


def verify(original: Original, path: Path, options: Options) -> Agreement:
    """Loads the file into a fresh model with nothing but its metadata to go by."""
    again = read_original(path)
    if again.metadata != original.metadata:
        raise ConversionError(f"{path} was read again with metadata {again.metadata} instead of {original.metadata}")
    read_back(original, path)
    differences = compare_at(
        two_sizes(original),
        lambda size, image: features(original.model(size), image),
        lambda size, image: features(again.model(size), image),
    )
    return Agreement("mst_transfer.checkpoint.load_backbone", differences)


def usage(original: Original, path: Path) -> str:
    """Config lines that use the file."""
    kind = "mst_transfer.TimmSwin" if original.is_swin() else "mst_transfer.TimmViTPyramid"
    options = "".join(f", {name}={value!r}" for name, value in original.metadata.arch_kwargs.items())
    return f'model = dict(backbone=dict(type="{kind}", arch="{original.metadata.arch}"{options}, checkpoint="{path}"))'


TARGET = Target("mst", (".safetensors",), "this package's own file, with metadata", write, verify, usage)
