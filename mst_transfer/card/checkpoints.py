"""Checkpoints of a card: named, found, and loaded completely before any job starts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mst_transfer.card.pictures import PHOTO, TRUTH
from mst_transfer.checkpoint import architecture_of, read_backbone
from mst_transfer.probes.backbones import RANDOM, FrozenBackbone, load_frozen

_UNTELLING = ("teacher", "student", "checkpoint", "model", "backbone", "latest", "last", "best")  # names of files
_NAMED = re.compile(r"([\w.+-]+)=(.+)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that loads.

    Attributes:
        name: in the card.
        path: of the file, ``timm://NAME``, or ``random``.
        sha256: of the file, of timm's tensors, or empty.
        load: the load report.
        arch, arch_kwargs: of ``timm.create_model``.
        mean, std: of its normalisation, RGB on a scale of 0 to 1.
        patch_size: in pixels; of a Swin the stride of its last map.
        embed_dim: D of its patch tokens.
        num_params: of the backbone.
    """

    name: str
    path: str
    sha256: str
    load: str
    arch: str
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    patch_size: int = 16
    embed_dim: int = 0
    num_params: int = 0

    @property
    def is_random(self) -> bool:
        """Whether each seed has weights of its own."""
        return self.path == RANDOM

    def load_frozen(self, seed: int, device: Any = "cpu", dtype: Any = None) -> FrozenBackbone:
        """The backbone; of ``random`` with the weights of a seed."""
        options: dict[str, Any] = dict(arch=self.arch, arch_kwargs=dict(self.arch_kwargs)) if self.is_random else {}
        return load_frozen(self.path, device=device, dtype=dtype, seed=seed, role=None, **options)[0]


def parse_names(words: Sequence[str]) -> dict[str, str]:
    """Name → path of the checkpoints on a command line: ``PATH``, ``NAME=PATH``, ``timm://NAME`` or ``random``.

    Raises:
        ValueError: two have one name; says how to name them.
    """
    named: dict[str, str] = {}
    for word in words:
        given = None if Path(word).exists() else _NAMED.fullmatch(word)
        name, path = (given[1], given[2]) if given else (_name_of(word), word)
        if name in (PHOTO, TRUTH):
            raise ValueError(f"a checkpoint cannot be called {name!r}, a column of the page's pictures: NAME={path}")
        if name in named:
            raise ValueError(
                f"two checkpoints are called {name!r}: {named[name]} and {path}. Next step: name them, "
                f"{name}_a={named[name]} {name}_b={path}"
            )
        named[name] = path
    return named


def _name_of(word: str) -> str:
    path = Path(word.rpartition("://")[2])
    if word.startswith(f"{RANDOM}:"):
        return RANDOM
    known = word.startswith(RANDOM) or "://" in word
    stem = path.name if known or path.is_dir() else path.stem
    return path.parent.name if stem in _UNTELLING and path.parent.name else stem


def open_checkpoints(words: Sequence[str]) -> list[Checkpoint]:
    """Loads every checkpoint once.

    ``random`` takes the architecture of the first other one, ``random:ARCH`` that of timm's name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file can't be read or is not covered, two have one name, or ``random`` has no architecture.
    """
    named = parse_names(words)
    named = {name: os.path.abspath(path) if os.path.exists(path) else path for name, path in named.items()}
    opened = {name: _open(name, path) for name, path in named.items() if not path.startswith(RANDOM)}
    first = next(iter(opened.values()), None)
    for name, path in named.items():
        if path.startswith(RANDOM):
            opened[name] = _random(name, path.partition(":")[2], first)
    return [opened[name] for name in named]


def _open(name: str, path: str) -> Checkpoint:
    frozen, report = load_frozen(path, role=None)
    arch, arch_kwargs = architecture_of(path, frozen.role)
    return _describe(name, path, _sha256(path), report, frozen, arch, arch_kwargs)


def _random(name: str, arch: str, first: Checkpoint | None) -> Checkpoint:
    if not arch and first is None:
        raise ValueError(
            f"{RANDOM!r} takes the architecture of another checkpoint, and there is none. Next step: "
            f"name it, e.g. {RANDOM}:vit_small_patch16_224"
        )
    arch_kwargs = {} if arch or first is None else dict(first.arch_kwargs)
    arch = arch or str(first and first.arch)
    mean_std: dict[str, Any] = dict(mean=first.mean, std=first.std) if first else {}
    frozen, report = load_frozen(RANDOM, arch=arch, arch_kwargs=arch_kwargs, **mean_std)
    return _describe(name, RANDOM, "", report, frozen, arch, arch_kwargs)


def _describe(
    name: str, path: str, digest: str, report: str, frozen: FrozenBackbone, arch: str, kwargs: Any
) -> Checkpoint:
    model, norm = frozen.model, frozen.normalisation
    info = getattr(model, "feature_info", None)
    patch = int(info[-1]["reduction"]) if info else int(model.patch_embed.patch_size[0])
    size = int(model.num_features), sum(parameter.numel() for parameter in model.parameters())
    return Checkpoint(name, path, digest, report, arch, dict(kwargs), tuple(norm.mean), tuple(norm.std), patch, *size)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    if Path(path).is_file():
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    else:
        for key, tensor in sorted(read_backbone(path)[0].items()):
            digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
