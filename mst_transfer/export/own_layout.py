"""Our own layout: a backbone checkpoint with metadata (:mod:`mst_transfer.checkpoint`)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mst_transfer.checkpoint import save_backbone
from mst_transfer.export.errors import ConversionError
from mst_transfer.export.inspection import config_lines
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
    kind, metadata = type(original.skeleton).__name__, original.metadata
    facts = {"class": kind, "token_norm": "norm.weight" in original.tensors, **asdict(metadata)}
    return config_lines(facts, str(path), metadata.role)


TARGET = Target("mst", (".safetensors",), "this package's own file, with metadata", write, verify, usage)
