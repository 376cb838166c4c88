"""Copies a backbone checkpoint into a model: completely, or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mst_transfer.checkpoint.errors import BackboneNotCoveredError, BackboneRefusedError, is_under, list_names
from mst_transfer.checkpoint.families import family_of
from mst_transfer.checkpoint.normalisation import timm_remark
from mst_transfer.checkpoint.read import find_backbone
from mst_transfer.checkpoint.recognise import BackboneFile, is_derived_tensor, is_head_tensor
from mst_transfer.checkpoint.refusals import (
    arch_remark,
    check_architecture,
    check_num_heads,
    check_numbers,
    check_strangers,
)
from mst_transfer.checkpoint.timm_names import to_names_of_model


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
        scheme: whose names the file bears, see ``BackboneFile``; may be empty.
        role: ``teacher`` or ``student`` where the file says so.
        normalisation: what to know of the images' normalisation; empty if nothing.
    """

    source: str
    loaded: tuple[str, ...]
    resized: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    skipped: tuple[str, ...]
    remark: str = ""
    pos_embed_interpolation: str = "timm"
    scheme: str = ""
    role: str | None = None
    normalisation: str = ""

    def table(self) -> str:
        """Counts and names as a few aligned lines of text."""
        rows = [
            ("loaded", len(self.loaded), ""),
            ("resized", len(self.resized), list_names([f"{k} {v}" for k, v in self.resized.items()])),
            ("missing", len(self.missing), list_names(self.missing)),
            ("unexpected", len(self.unexpected), list_names(self.unexpected)),
            ("skipped", len(self.skipped), list_names(self.skipped)),
        ]
        kind = ", ".join(filter(None, (self.scheme, self.role)))
        lines = [f"backbone weights from {self.source}" + (f" ({kind})" if kind else "")]
        lines += [f"  {name:<11}{count:>5}  {names}".rstrip() for name, count, names in rows]
        lines += [f"  normalisation: {self.normalisation}"] if self.normalisation else []
        lines += [f"  warning: {self.remark}"] if self.remark else []
        return "\n".join(lines)


def load_backbone(
    model: nn.Module,
    path: str | Path | BackboneFile,
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
        path: see ``read_backbone``; or a file that ``find_backbone`` has read.
        role: of a path: ``teacher`` or ``student``; None: the only one that the file names, else the teacher.
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
    file = find_backbone(path, role)
    source = file.source
    interpolation = pos_embed_interpolation or file.interpolation
    tensors, zeros = to_names_of_model(file.tensors, model)
    skipped = tuple(
        n for n in tensors if n not in wanted and (is_head_tensor(n) or is_derived_tensor(n) or is_under(n, unused))
    )
    given = {name: tensor for name, tensor in tensors.items() if name not in skipped}

    check_architecture(family, model, given, file, unused, skipped)
    check_num_heads(family, model, given, file)
    check_strangers(family, model, given, file)
    check_numbers({name: tensor for name, tensor in given.items() if name in wanted}, source)
    derived = {name: tensors[name] for name in skipped if is_derived_tensor(name)}
    given, resized = family.fit(model, given | derived, file.metadata, interpolation, source)
    given = {name: tensor for name, tensor in given.items() if name not in derived}
    missing = tuple(name for name in wanted if name not in given)
    uncovered = tuple(name for name in missing if not is_under(name, may_miss))
    if uncovered:
        raise BackboneNotCoveredError(
            f"{source} does not cover the backbone: {len(uncovered)} of its {len(wanted)} tensors would stay "
            f"random: {list_names(uncovered, 8)}. Build the model with the checkpoint's arch and options, or "
            "name what may keep its initial value in may_miss=[…]."
        )
    wrong = [
        f"{name}: checkpoint {tuple(given[name].shape)}, model {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if wrong:
        raise BackboneRefusedError(f"{source} is of another architecture; shapes differ in {list_names(wrong, 4)}")
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
