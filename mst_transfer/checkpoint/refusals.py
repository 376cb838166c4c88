"""Refuses checkpoints that are not the model's, naming both sides, before any tensor is copied."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mst_transfer.checkpoint.errors import BackboneRefusedError, is_under, list_names
from mst_transfer.checkpoint.families import Family
from mst_transfer.checkpoint.metadata import BackboneMetadata, skeleton
from mst_transfer.checkpoint.recognise import BackboneFile


def check_architecture(
    family: Family,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    file: BackboneFile,
    unused: Sequence[str],
    skipped: Sequence[str],
) -> None:
    """Compares what a checkpoint and a model must have in common, and the heads that metadata name.

    ``tensors`` are the file's without ``skipped``, those left out on purpose; blocks among ``unused``, the module paths
    that the model has removed on purpose, count to its depth.

    Raises:
        BackboneRefusedError: says what the checkpoint is and what the model is.
    """
    found, anchor = tensors.get(family.anchor), model.state_dict()[family.anchor]
    if found is not None and found.ndim != anchor.ndim:
        raise BackboneRefusedError(
            f"{file.source}: {family.anchor} has shape {tuple(found.shape)}, the model's {tuple(anchor.shape)}: it is "
            "no backbone of that kind"
        )
    checkpoint = family.describe(tensors, [*tensors, *skipped])
    wanted = family.describe(model.state_dict(), [*model.state_dict(), *unused])
    heads, metadata = family.num_heads(model), file.metadata
    if metadata is not None and heads is not None:  # which leave no trace in shapes
        checkpoint["heads"] = metadata.arch_kwargs.get("num_heads") or family.num_heads(skeleton(metadata.arch))
        wanted["heads"] = heads
    if checkpoint != wanted:
        raise BackboneRefusedError(
            f"{file.source} is of another architecture (checkpoint: {_in_words(checkpoint)}; "
            f"model: {_in_words(wanted)}).{_advice(metadata)}"
        )


def check_num_heads(family: Family, model: nn.Module, tensors: Mapping[str, Tensor], file: BackboneFile) -> None:
    """Refuses other heads than the publishers of a foreign scheme have at this width; shapes do not tell them."""
    heads, width = family.num_heads(model), len(tensors[family.anchor])
    expected = file.num_heads.get(width, heads)
    if heads != expected:
        raise BackboneRefusedError(
            f"a {file.scheme} of width {width} has {expected} attention heads, the model has {heads}: its features "
            f"would be others without any error. Build the model with num_heads={expected}; if you trained these "
            "weights with another number, save them with it as a backbone checkpoint (save_backbone)"
        )


def check_strangers(family: Family, model: nn.Module, tensors: Mapping[str, Tensor], file: BackboneFile) -> None:
    """Refuses trunk tensors that the model has no place for."""
    names = set(model.state_dict())
    strangers = [name for name in tensors if name not in names and is_under(name, family.trunk)]
    if strangers:
        raise BackboneRefusedError(
            f"{file.source} has {len(strangers)} tensors that the model has no place for: "
            f"{list_names(strangers)}. Without them the features would differ from the checkpoint's: build "
            "the model with the same arch and options "
            "(LayerScale: init_values, register tokens: reg_tokens, BEiT: a beit arch, DINOv3: a dinov3 arch, …)."
            f"{_advice(file.metadata)}"
        )


def check_numbers(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses tensors with NaN or infinite values, as a pre-training that diverged leaves them."""
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise BackboneRefusedError(
            f"{source}: {len(broken)} of {len(tensors)} tensors hold NaN or infinite values: {list_names(broken)}. "
            "The training that wrote it has diverged: take an earlier checkpoint"
        )


def arch_remark(model: nn.Module, metadata: BackboneMetadata | None) -> str:
    """What to say if the model is another architecture than the checkpoint's although all shapes are equal.

    Such architectures differ in what leaves no tensors: the activation, the epsilon of the norms, pooling.
    """
    arch = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if metadata is None or not arch or arch == metadata.arch.split(".")[0]:
        return ""
    return f"the checkpoint was made by arch={metadata.arch!r}, the model is arch={arch!r}: the shapes agree only"


def _in_words(description: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in description.items())


def _advice(metadata: BackboneMetadata | None) -> str:
    if metadata is None:
        return " Choose the arch that the checkpoint was trained with."
    overrides = "".join(f", {name}={value!r}" for name, value in metadata.arch_kwargs.items())
    return f" The checkpoint was made by arch={metadata.arch!r}{overrides}."
