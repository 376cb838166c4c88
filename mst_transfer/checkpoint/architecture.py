"""Names the timm architecture of a checkpoint, from its metadata, else from its tensors.

A guess is only given if a model built from it takes every tensor of the checkpoint.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneRefusedError, list_names
from mst_transfer.checkpoint.families.infer_swin import infer_swin
from mst_transfer.checkpoint.families.infer_vit import infer_vit
from mst_transfer.checkpoint.families.swin import SwinFamily
from mst_transfer.checkpoint.metadata import skeleton
from mst_transfer.checkpoint.read import find_backbone
from mst_transfer.checkpoint.recognise import BackboneFile, is_derived_tensor, is_head_tensor
from mst_transfer.checkpoint.timm_names import to_names_of_model


def architecture_of(path: str | Path | BackboneFile, role: str | None = "teacher") -> tuple[str, dict[str, Any]]:
    """Architecture of a checkpoint; arguments as of ``mst_transfer.checkpoint.load_backbone``.

    Returns:
        Name and overrides for ``timm.create_model``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or leaves its architecture open.
    """
    file = find_backbone(path, role)
    if file.metadata is not None:
        return file.metadata.arch, dict(file.metadata.arch_kwargs)
    return infer_architecture(file.tensors, file.source)


def infer_architecture(tensors: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any]]:
    """Guesses the architecture from timm's names and shapes, by the conventions of those who publish weights.

    Returns:
        Name and overrides for ``timm.create_model``. Numbers of heads leave no trace in shapes: they are those that
        are customary for the width.

    Raises:
        BackboneRefusedError: the tensors are of no architecture of timm, or leave open of which.
    """
    infer = infer_swin if SwinFamily.anchor in tensors else infer_vit
    try:
        arch, options = infer(tensors, source)
        model = skeleton(arch, **options)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError) as error:
        raise BackboneRefusedError(
            f"{source} leaves its architecture open: its tensors have names of a backbone, but not the shapes "
            f"({type(error).__name__}: {str(error)[:200]}). Is the file whole? Else name the architecture: arch=…"
        ) from error
    wanted = model.state_dict()
    renamed, _ = to_names_of_model(tensors, model)
    given = {n: t for n, t in renamed.items() if n in wanted or not (is_head_tensor(n) or is_derived_tensor(n))}
    wrong = [name for name in given if name not in wanted or given[name].shape != wanted[name].shape]
    missing = [name for name in wanted if name not in given and not is_head_tensor(name)]
    if wrong or missing:
        raise BackboneRefusedError(
            f"{source} is like {arch} with {options}, but {len(wrong)} tensors do not fit it ({list_names(wrong)}) and "
            f"{len(missing)} of its tensors are missing ({list_names(missing)}). Name the architecture: arch=…"
        )
    return arch, options
