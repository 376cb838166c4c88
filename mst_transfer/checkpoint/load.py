"""Copies a backbone checkpoint into a model: completely, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from mst_transfer.checkpoint.checks import (
    BackboneNotCoveredError,
    BackboneRefusedError,
    arch_remark,
    check_architecture,
    check_numbers,
    is_under,
    list_names,
)
from mst_transfer.checkpoint.families import family_of
from mst_transfer.checkpoint.read import read_file
from mst_transfer.checkpoint.recognise import is_head_tensor
from mst_transfer.checkpoint.report import LoadReport


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
    family, wanted = family_of(model), model.state_dict()
    tensors, metadata, interpolation = read_file(path, role)
    interpolation = pos_embed_interpolation or interpolation
    skipped = tuple(n for n in tensors if n not in wanted and (is_head_tensor(n) or is_under(n, unused)))
    given = {name: tensor for name, tensor in tensors.items() if name not in skipped}

    check_architecture(family, model, given, metadata, source=str(path), unused=unused, skipped=skipped)
    check_numbers({name: tensor for name, tensor in given.items() if name in wanted}, str(path))
    given, resized = family.fit(model, given, metadata, interpolation, str(path))
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
