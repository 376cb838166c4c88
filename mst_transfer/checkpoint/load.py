"""Copies a backbone checkpoint into a model: completely, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from mst_transfer.checkpoint.checks import (
    arch_remark,
    check_architecture,
    check_num_heads,
    check_numbers,
    check_strangers,
)
from mst_transfer.checkpoint.errors import BackboneNotCoveredError, BackboneRefusedError, is_under, list_names
from mst_transfer.checkpoint.families import family_of
from mst_transfer.checkpoint.normalisation import timm_remark
from mst_transfer.checkpoint.read import find_backbone
from mst_transfer.checkpoint.recognise import is_derived_tensor, is_head_tensor
from mst_transfer.checkpoint.report import LoadReport
from mst_transfer.checkpoint.spelling import respell


def load_backbone(
    model: nn.Module,
    path: str | Path,
    *,
    role: str | None = "teacher",
    may_miss: Sequence[str] = (),
    unused: Sequence[str] = (),
    pos_embed_interpolation: str | None = None,
) -> LoadReport:
    """Copies a checkpoint into a timm model of the same architecture, for images, patches and channels of any size.

    Args:
        model: a timm ``VisionTransformer``, ``Beit``, ``Eva`` or ``SwinTransformer``, possibly with its last blocks,
            norm or head removed.
        path: see :func:`read_backbone`.
        role: ``teacher`` or ``student``; None: the only one that the file names, else the teacher.
        may_miss: names (or module paths such as ``norm``) of the model that the file may lack.
        unused: names or module paths of the file that the model has removed on purpose, e.g. ``blocks.11``.
        pos_embed_interpolation: ``timm`` or ``dino``; None: as the file's metadata say; of foreign files, ``dino`` for
            full training checkpoints of DINO and iBOT and for DINOv2 without registers, else ``timm`` (DINO's published
            backbones have no mark).

    Returns:
        What was loaded, resized, missing, unexpected and skipped.

    Raises:
        FileNotFoundError: if there is no such file.
        BackboneNotCoveredError: if tensors of the model are neither in the file nor in ``may_miss``.
        BackboneRefusedError: if the file is of another architecture, or holds NaN; nothing has been copied then.
    """
    family, wanted = family_of(model), model.state_dict()
    file, source = find_backbone(path, role), str(path)
    interpolation = pos_embed_interpolation or file.interpolation
    tensors, zeros = respell(file.tensors, wanted, rotary=getattr(model, "rope", None) is not None)
    skipped = tuple(
        n for n in tensors if n not in wanted and (is_head_tensor(n) or is_derived_tensor(n) or is_under(n, unused))
    )
    given = {name: tensor for name, tensor in tensors.items() if name not in skipped}

    check_architecture(family, model, given, file.metadata, source=source, unused=unused, skipped=skipped)
    check_num_heads(family, model, given, file)
    check_strangers(family, model, given, file.metadata, source)
    check_numbers({name: tensor for name, tensor in given.items() if name in wanted}, source)
    derived = {name: tensors[name] for name in skipped if is_derived_tensor(name)}
    given, resized = family.fit(model, given | derived, file.metadata, interpolation, source)
    given = {name: tensor for name, tensor in given.items() if name not in derived}
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
    return LoadReport(
        source=source,
        loaded=tuple(name for name in wanted if name in given and name not in resized),
        resized=resized,
        missing=missing,
        unexpected=tuple(name for name in given if name not in wanted),
        skipped=skipped + zeros,
        remark="; ".join(filter(None, (arch_remark(model, file.metadata), _patch_remark(resized)))),
        pos_embed_interpolation=interpolation,
        scheme=file.scheme,
        role=file.role,
        normalisation=timm_remark(model, file.metadata),
    )


def _patch_remark(resized: Mapping[str, str]) -> str:
    """Resized patches are an approximation, and more often a mistake than meant."""
    change = resized.get("patch_embed.proj.weight", "")
    return f"the patch embedding was resized ({change}): features are near the checkpoint's, not equal" * bool(change)
