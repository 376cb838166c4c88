"""What a backbone checkpoint says about itself, as strings in the header of a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mst_transfer.checkpoint.pos_embed import check_interpolation

FORMAT = "mst_transfer.backbone"
FORMAT_VERSION = "1"
ROLES = ("teacher", "student")
_JSON_FIELDS = ("arch_kwargs", "img_size", "mean", "std", "provenance")


@dataclass(frozen=True)
class BackboneMetadata:
    """What a backbone checkpoint says about itself.

    Attributes:
        arch: timm model name, e.g. ``vit_small_patch16_224``.
        arch_kwargs: overrides given to ``timm.create_model``, e.g. ``{"img_size": 96, "patch_size": 8}``.
        patch_size: patch side p in pixels.
        img_size: height and width in pixels that ``pos_embed`` was made for.
        embed_dim: embedding width D.
        mean: RGB mean of the input normalisation, on a scale of 0 to 1.
        std: RGB standard deviation, on the same scale.
        role: ``teacher`` (the moving average, best for transfer) or ``student``.
        pos_embed_interpolation: how ``pos_embed`` is meant to be resampled, ``timm`` or ``dino``
            (:mod:`mst_transfer.checkpoint.pos_embed`).
        provenance: config name, epoch, step, seed, versions, date: whatever explains where the file is from.
    """

    arch: str
    arch_kwargs: dict[str, Any]
    patch_size: int
    img_size: tuple[int, int]
    embed_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    role: str
    pos_embed_interpolation: str = "timm"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r} is not one of {ROLES}")
        check_interpolation(self.pos_embed_interpolation)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    def to_strings(self) -> dict[str, str]:
        """The metadata as safetensors stores them: strings, JSON where a value is structured."""
        strings = {"format": FORMAT, "format_version": FORMAT_VERSION}
        for item in fields(self):
            value = getattr(self, item.name)
            strings[item.name] = json.dumps(value) if item.name in _JSON_FIELDS else str(value)
        return strings

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], source: str | Path) -> BackboneMetadata:
        """Parses what :meth:`to_strings` wrote.

        Raises:
            ValueError: if the version is unknown or an entry is missing or malformed.
        """
        if strings.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{source}: format_version={strings.get('format_version')!r}; this release reads "
                f"{FORMAT_VERSION!r}. Update mst-transfer, or write the checkpoint again."
            )
        values: dict[str, Any] = {}
        for item in fields(cls):
            if item.name not in strings:
                raise ValueError(f"{source}: metadata lack {item.name!r}; write the checkpoint again")
            text = strings[item.name]
            try:
                values[item.name] = json.loads(text) if item.name in _JSON_FIELDS else text
            except json.JSONDecodeError as error:
                raise ValueError(f"{source}: metadata entry {item.name!r} is not JSON: {text!r}") from error
        for name in ("patch_size", "embed_dim"):
            values[name] = int(values[name])
        for name in ("img_size", "mean", "std"):
            values[name] = tuple(values[name])
        return cls(**values)
