"""The contract between pre-training and transfer: what a backbone checkpoint is; writing, reading, loading.

A backbone checkpoint is one safetensors file. Its tensors carry the names of timm's ``VisionTransformer``
(``cls_token``, ``pos_embed``, ``patch_embed.proj.weight``, ``blocks.0.…``, ``norm.weight``), without head and
without mask token; its metadata (:class:`BackboneMetadata`) say which architecture they belong to. Files of
other projects are read too: see :mod:`mst_transfer.checkpoint_sources`.

Loading never half-succeeds: everything is checked before the first tensor is copied, and a model whose
backbone is not covered raises :class:`BackboneNotCoveredError`.

Shapes: D embedding width, N tokens (prefix + patches), p patch side in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mst_transfer.checkpoint_checks import (
    BackboneRefusedError,
    arch_remark,
    check_architecture,
    check_numbers,
    is_under,
    list_names,
)
from mst_transfer.checkpoint_pos_embed import check_interpolation, fit_pos_embed
from mst_transfer.checkpoint_sources import (
    extract_backbone,
    interpolation_of,
    is_head_tensor,
    read_pickle,
    read_safetensors,
)
from mst_transfer.compat.serialization import write_atomically

FORMAT = "mst_transfer.backbone"
FORMAT_VERSION = "1"
ROLES = ("teacher", "student")
_JSON_FIELDS = ("arch_kwargs", "img_size", "mean", "std", "provenance")


class BackboneNotCoveredError(BackboneRefusedError):
    """Tensors of the model have no counterpart in the checkpoint: they would silently stay random."""


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
            (:mod:`mst_transfer.checkpoint_pos_embed`).
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


@dataclass(frozen=True)
class LoadReport:
    """What happened to each tensor of the model and of the file; names are timm's.

    Attributes:
        source: the file.
        loaded: names copied as they are.
        resized: names copied after resampling, with how, e.g. ``{"pos_embed": "14x14 -> 6x8"}``.
        missing: names of the model that the file lacks (only those that the caller allowed to be missing).
        unexpected: names of the file that the model has no place for.
        skipped: names of the file left out on purpose: heads, mask token, blocks that the model does without.
        remark: what is doubtful although everything fits; empty if nothing is.
        pos_embed_interpolation: how the position embeddings are to be resampled, now and in the forward pass.
    """

    source: str
    loaded: tuple[str, ...]
    resized: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    skipped: tuple[str, ...]
    remark: str = ""
    pos_embed_interpolation: str = "timm"

    def table(self) -> str:
        """Counts and names as a few aligned lines of text."""
        rows = [
            ("loaded", len(self.loaded), ""),
            ("resized", len(self.resized), ", ".join(f"{k} {v}" for k, v in self.resized.items())),
            ("missing", len(self.missing), list_names(self.missing)),
            ("unexpected", len(self.unexpected), list_names(self.unexpected)),
            ("skipped", len(self.skipped), list_names(self.skipped)),
        ]
        lines = [f"backbone weights from {self.source}"]
        lines += [f"  {name:<11}{count:>5}  {names}".rstrip() for name, count, names in rows]
        lines += [f"  warning: {self.remark}"] if self.remark else []
        return "\n".join(lines)


def save_backbone(path: str | Path, state_dict: Mapping[str, Tensor], metadata: BackboneMetadata) -> None:
    """Writes a backbone checkpoint under a temporary name, then renames it: a reader never sees half a file.

    Args:
        path: where to write; folders are made. Conventionally ends in ``.safetensors``.
        state_dict: backbone tensors under timm's names; no head, no mask token.
        metadata: must agree with the tensors.

    Raises:
        ValueError: if the tensors are not a backbone's, or disagree with ``metadata``.
    """
    if "patch_embed.proj.weight" not in state_dict:
        raise ValueError(
            "state_dict has no 'patch_embed.proj.weight': give the backbone's own state_dict(), without a "
            f"prefix (its first names: {list_names(tuple(state_dict))})"
        )
    extra = tuple(name for name in state_dict if is_head_tensor(name))
    if extra:
        raise ValueError(f"a backbone checkpoint holds no head and no mask token; drop {list_names(extra)}")
    projection = state_dict["patch_embed.proj.weight"]  # [D, 3, p, p]
    found = (projection.shape[0], projection.shape[-1])
    if found != (metadata.embed_dim, metadata.patch_size):
        raise ValueError(
            f"metadata say width {metadata.embed_dim}, patch {metadata.patch_size}; "
            f"the tensors have width {found[0]}, patch {found[1]}"
        )
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state_dict.items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata.to_strings()))


def read_backbone(
    path: str | Path, role: str = "teacher"
) -> tuple[dict[str, Tensor], BackboneMetadata | None]:
    """Reads backbone tensors under timm's names from our own file or from one of another project.

    Args:
        path: ``.safetensors``, or a pickle such as ``.pth``, which is only read with ``weights_only=True``.
        role: which network to take where a file holds both, ``teacher`` or ``student``.

    Returns:
        The tensors (heads of foreign files included, under their names in the file) and the metadata;
        None instead of metadata for a file that is not ours.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read safely, holds no ViT backbone, or holds the other role.
    """
    return _read(path, role)[:2]


def _read(path: str | Path, role: str) -> tuple[dict[str, Tensor], BackboneMetadata | None, str]:
    """What :func:`read_backbone` returns, and how ``pos_embed`` is to be resampled."""
    path = Path(path)
    if role not in ROLES:
        raise ValueError(f"role={role!r} is not one of {ROLES}")
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no backbone checkpoint {str(path)!r}. Pre-training writes teacher.safetensors and "
            "student.safetensors to its work directory; give the path of one of them, or checkpoint=None for "
            "a random initialisation."
        )
    if path.suffix == ".safetensors":
        tensors, strings = read_safetensors(path)
        if strings.get("format") == FORMAT:
            metadata = BackboneMetadata.from_strings(strings, path)
            if metadata.role != role:
                raise ValueError(
                    f"{path} holds the {metadata.role}, not the {role}: pass role={metadata.role!r}, "
                    f"or give the {role}'s file"
                )
            return tensors, metadata, metadata.pos_embed_interpolation
    else:
        tensors = read_pickle(path)
    return extract_backbone(tensors, role, str(path)), None, interpolation_of(tensors)


def load_backbone(
    model: nn.Module,
    path: str | Path,
    *,
    role: str = "teacher",
    may_miss: Sequence[str] = (),
    unused: Sequence[str] = (),
    pos_embed_interpolation: str | None = None,
) -> LoadReport:
    """Copies a checkpoint into a timm ViT; resamples ``pos_embed`` to the model's grid, square or not.

    Args:
        model: a timm ``VisionTransformer``, possibly with its last blocks, norm or head removed.
        path: see :func:`read_backbone`.
        role: ``teacher`` or ``student``.
        may_miss: names (or module paths such as ``norm``) of the model that the file may lack.
        unused: names or module paths of the file that the model has removed on purpose, e.g. ``blocks.11``.
        pos_embed_interpolation: ``timm`` or ``dino``; None: as the file's metadata say, ``dino`` for a full training
            checkpoint of DINO, ``timm`` for other foreign files (DINO's published backbones have no mark).

    Returns:
        What was loaded, resized, missing, unexpected and skipped.

    Raises:
        FileNotFoundError: if there is no such file.
        BackboneNotCoveredError: if tensors of the model are neither in the file nor in ``may_miss``.
        BackboneRefusedError: if the file is of another architecture or patch size, or holds NaN; nothing has
            been copied then.
    """
    wanted = model.state_dict()
    if "patch_embed.proj.weight" not in wanted:
        raise ValueError(f"{type(model).__name__} has no 'patch_embed.proj.weight': give a timm ViT")
    tensors, metadata, interpolation = _read(path, role)
    interpolation = pos_embed_interpolation or interpolation
    skipped = tuple(n for n in tensors if n not in wanted and (is_head_tensor(n) or is_under(n, unused)))
    given = {name: tensor for name, tensor in tensors.items() if name not in skipped}

    check_architecture(model, given, metadata, source=str(path), unused=unused, skipped=skipped)
    check_numbers({name: tensor for name, tensor in given.items() if name in wanted}, str(path))
    resized: dict[str, str] = {}
    if "pos_embed" in given and "pos_embed" in wanted:
        grid = metadata.grid_size if metadata else None
        given["pos_embed"], change = fit_pos_embed(model, given["pos_embed"], grid, interpolation, str(path))
        if change:
            resized["pos_embed"] = change
    missing = tuple(name for name in wanted if name not in given)
    uncovered = tuple(name for name in missing if not is_under(name, may_miss))
    if uncovered:
        raise BackboneNotCoveredError(
            f"{path} does not cover the backbone: {len(uncovered)} of its {len(wanted)} tensors would stay "
            f"random: {list_names(uncovered, 8)}. Build the model with the checkpoint's arch and options, or "
            "name what may keep its initial value in may_miss=[…]."
        )
    wrong = [
        f"{name}: checkpoint {tuple(given[name].shape)}, model {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if wrong:
        raise BackboneRefusedError(f"{path} is of another architecture; shapes differ in {list_names(wrong, 4)}")
    with torch.no_grad():
        for name, target in wanted.items():
            if name in given:
                target.copy_(given[name])
    loaded = tuple(name for name in wanted if name in given and name not in resized)
    unexpected = tuple(name for name in given if name not in wanted)
    remark = arch_remark(model, metadata)
    return LoadReport(str(path), loaded, resized, missing, unexpected, skipped, remark, interpolation)
