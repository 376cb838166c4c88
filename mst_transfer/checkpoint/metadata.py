"""Describes a backbone checkpoint, as strings in the header of a safetensors file."""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import timm

from mst_transfer.checkpoint.pos_embed import check_interpolation

FORMAT = "mst_transfer.backbone"
FORMAT_VERSION = "1"
CARRIED = "mst_transfer"  # entry of a file for timm: our metadata as JSON
ROLES = ("teacher", "student")
MAX_SIZE = 100_000
_NOT_OF_ARCHITECTURES = ("pretrained", "checkpoint", "cache_dir")
_JSON_FIELDS = ("arch_kwargs", "img_size", "mean", "std", "provenance")


def skeleton(arch: str, **options: Any) -> Any:
    """timm's model of an architecture, without head and without memory for its tensors."""
    return timm.create_model(arch, pretrained=False, num_classes=0, device="meta", **options)


def check_known(arch: str) -> None:
    """Refuses a name that timm does not know, with or without the tag of its weights.

    Raises:
        ValueError: names what is near.
    """
    known = timm.list_models()
    if arch.split(".")[0] not in known:
        near = difflib.get_close_matches(arch, known, n=4, cutoff=0.4)
        raise ValueError(f"arch={arch!r} is not a timm model; near names: {', '.join(near) or 'none'}")


def carried_strings(strings: dict[str, str]) -> dict[str, str]:
    """The strings of our metadata that a file for timm carries; the file's own if it carries none that can be read."""
    try:
        found = json.loads(strings.get(CARRIED, "null"))
    except (ValueError, RecursionError):
        return strings
    return found if isinstance(found, dict) and all(isinstance(one, str) for one in found.values()) else strings


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
            (``mst_transfer.checkpoint.pos_embed``).
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
    def from_strings(cls, strings: Mapping[str, str], source: str | Path) -> "BackboneMetadata":
        """Parses what ``to_strings`` wrote.

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
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{source}: metadata entry {item.name!r} is not JSON: {text[:200]!r}") from error
        for name, fits in _PLAUSIBLE.items():
            if not fits(values[name]):
                raise ValueError(
                    f"{source}: metadata entry {name}={strings[name][:200]!r} cannot be; write the checkpoint again"
                )
        for name in ("patch_size", "embed_dim"):
            values[name] = int(values[name])
        for name in ("img_size", "mean", "std"):
            values[name] = tuple(values[name])
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_SIZE


def _is_short_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,6}", text) is not None and _is_size(int(text))


def _is_colour(value: Any, lowest: float) -> bool:
    numbers = isinstance(value, list) and all(type(one) in (int, float) for one in value)
    return numbers and 1 <= len(value) <= 64 and all(lowest <= one <= 255 for one in value)


def _is_options(value: Any) -> bool:
    """Options of an architecture: none of those by which timm would fetch or read other weights, no endless size."""

    def plain(one: Any) -> bool:
        if isinstance(one, list):
            return len(one) <= 64 and all(map(plain, one))
        return one is None or isinstance(one, bool | str) or (type(one) in (int, float) and abs(one) <= MAX_SIZE)

    names = isinstance(value, dict) and not any(name.startswith(_NOT_OF_ARCHITECTURES) for name in value)
    return names and all(map(plain, value.values()))


# What a file may say of itself. It is not trusted: the architecture is built from it.
_PLAUSIBLE: dict[str, Callable[[Any], bool]] = {
    "arch": lambda value: re.fullmatch(r"\w[\w.]{0,200}", value) is not None,
    "arch_kwargs": _is_options,
    "patch_size": _is_short_number,
    "embed_dim": _is_short_number,
    "img_size": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_size, value)),
    "mean": lambda value: _is_colour(value, -255),
    "std": lambda value: _is_colour(value, 1e-6),
    "provenance": lambda value: isinstance(value, dict),
}
