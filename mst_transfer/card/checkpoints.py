"""Checkpoints of a card: named, found, and loaded completely before any job starts."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_transfer.card.pictures import PHOTO, TRUTH
from mst_transfer.checkpoint import architecture_of, read_backbone
from mst_transfer.checkpoint.addresses import fetch, is_address
from mst_transfer.checkpoint.hf_hub import is_hub_address, parse_address
from mst_transfer.files.checksums import checksum_of, sha256_of
from mst_transfer.probes.backbones import RANDOM, FrozenBackbone, load_frozen

_UNTELLING = ("teacher", "student", "checkpoint", "model", "backbone", "latest", "last", "best")  # names of files
_NAMED = re.compile(r"([\w.+-]+)=(.+)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that loads."""

    name: str  # in the card
    path: str  # of the file, ``zoo://NAME``, ``timm://NAME``, ``hf://ORG/REPO/FILE@COMMIT``, or ``random``
    sha256: str  # of the file, of timm's tensors, or empty
    load: str  # the load report
    arch: str  # with arch_kwargs of ``timm.create_model``
    arch_kwargs: Mapping[str, Any]
    mean: Sequence[float]  # of its normalisation, RGB on a scale of 0 to 1
    std: Sequence[float]
    patch_size: int  # in pixels; of a Swin the stride of its last map
    embed_dim: int  # D of its patch tokens
    num_params: int  # of the backbone
    img_size: int  # side in pixels of the views that it was trained with

    @property
    def is_random(self) -> bool:
        """Whether each seed has weights of its own."""
        return self.path == RANDOM

    def load_frozen(self, seed: int, device: Any = "cpu") -> FrozenBackbone:
        """The backbone; of ``random`` with the weights of a seed."""
        options: dict[str, Any] = {}
        if self.is_random:
            options = dict(arch=self.arch, arch_kwargs=dict(self.arch_kwargs), mean=self.mean, std=self.std)
        return load_frozen(self.path, device=device, seed=seed, role=None, **options)[0]


def parse_names(words: Sequence[str]) -> dict[str, str]:
    """Name → path of the checkpoints on a command line: a ``PATH``, ``NAME=PATH`` or what stands for one.

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
    if _is_random(word):
        return RANDOM
    if is_hub_address(word):
        return parse_address(word)[0].partition("/")[2]
    path = Path(word.rpartition("://")[2])
    stem = path.name if "://" in word or path.is_dir() else path.stem
    return path.parent.name if stem in _UNTELLING and path.parent.name else stem


def _is_random(path: str) -> bool:
    return path.partition(":")[0] == RANDOM


def open_checkpoints(words: Sequence[str]) -> list[Checkpoint]:
    """Loads every checkpoint once.

    ``random`` takes the architecture of the first other one, ``random:ARCH`` that of timm's name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is none, one can't be read or is not covered, two have one name, or ``random`` has no
            architecture.
    """
    if not words:
        raise ValueError("there is no checkpoint to evaluate. Next step: name files, timm://NAME or random:ARCH")
    opened: dict[str, Checkpoint] = {}
    named = parse_names(words)
    for name in sorted(named, key=lambda name: _is_random(named[name])):
        first = next((one for one in opened.values() if not one.is_random), None)
        opened[name] = _open(name, named[name], first)
    return [opened[name] for name in named]


def _open(name: str, path: str, first: Checkpoint | None) -> Checkpoint:
    path = os.path.abspath(path) if os.path.exists(path) else path
    file, path = fetch(path) if is_address(path) else (path, path)
    digest, options = "", dict[str, Any]()
    if _is_random(path):
        path, _, arch = path.partition(":")
        if first is not None:
            options = dict(arch=first.arch, arch_kwargs=dict(first.arch_kwargs), mean=first.mean, std=first.std)
        if arch:
            options |= dict(arch=arch, arch_kwargs={})
        if not options:
            raise ValueError(
                f"{RANDOM!r} takes the architecture of another checkpoint, and there is none. Next step: "
                f"name it, e.g. {RANDOM}:vit_small_patch16_224"
            )
    frozen, report = load_frozen(path, role=None, **options)
    if options:
        arch, arch_kwargs = options["arch"], options["arch_kwargs"]
    else:
        arch, arch_kwargs = architecture_of(path, frozen.role)
        digest = sha256_of(file) if os.path.isfile(file) else checksum_of(read_backbone(path)[0], {})
    model, norm = frozen.model, frozen.normalisation
    info = getattr(model, "feature_info", None)
    return Checkpoint(
        name=name,
        path=path,
        sha256=digest,
        load=report,
        arch=arch,
        arch_kwargs=dict(arch_kwargs),
        mean=norm.mean,
        std=norm.std,
        patch_size=int(info[-1]["reduction"]) if info else int(model.patch_embed.patch_size[0]),
        embed_dim=int(model.num_features),
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        img_size=int(frozen.img_size),
    )
