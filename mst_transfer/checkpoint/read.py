"""Reads backbone checkpoints: our own, those of other projects, and timm's published weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from mst_transfer.checkpoint.files import read_pickle, read_safetensors
from mst_transfer.checkpoint.metadata import FORMAT, ROLES, BackboneMetadata
from mst_transfer.checkpoint.recognise import recognise
from mst_transfer.checkpoint.sources.facebook import MOCO_V3, is_moco_v3
from mst_transfer.checkpoint.timm_hub import is_timm_name, read_published


@dataclass(frozen=True)
class BackboneFile:
    """What a file says about a backbone.

    Attributes:
        tensors: under timm's names; heads of foreign files included, under their names in the file.
        metadata: None for a file that is not ours.
        scheme: whose names it bears: ``MST`` for ours, else the ``name`` of one of
            :data:`mst_transfer.checkpoint.sources.SOURCES`.
        role: ``teacher`` or ``student``, None where the file does not say.
        interpolation: how ``pos_embed`` is to be resampled.
        num_heads: numbers of attention heads by width, as far as the scheme fixes them.
    """

    tensors: dict[str, Tensor]
    metadata: BackboneMetadata | None
    scheme: str
    role: str | None
    interpolation: str
    num_heads: Mapping[int, int] = field(default_factory=dict)


def read_backbone(path: str | Path, role: str | None = "teacher") -> tuple[dict[str, Tensor], BackboneMetadata | None]:
    """Reads backbone tensors under timm's names from our own file or from one of another project.

    Args:
        path: ``.safetensors``, or a pickle such as ``.pth``, which is only read with ``weights_only=True``; or
            ``timm://NAME`` for weights that timm publishes, e.g. ``timm://vit_small_patch16_224.dino``.
        role: which network to take where a file holds both, ``teacher`` or ``student``; None: the only one that the
            file names, else the teacher.

    Returns:
        The tensors (heads of foreign files included, under their names in the file) and the metadata;
        None instead of metadata for a file that is not ours.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read safely, holds no backbone, or holds the other role.
    """
    found = find_backbone(path, role)
    return found.tensors, found.metadata


def read_file(path: str | Path, role: str | None = "teacher") -> tuple[dict[str, Tensor], BackboneMetadata | None, str]:
    """What :func:`read_backbone` returns, and how ``pos_embed`` is to be resampled."""
    found = find_backbone(path, role)
    return found.tensors, found.metadata, found.interpolation


def find_backbone(path: str | Path, role: str | None = "teacher") -> BackboneFile:
    """What :func:`read_backbone` returns, and more. Arguments and errors are the same."""
    if role not in (None, *ROLES):
        raise ValueError(f"role={role!r} is not one of {ROLES}")
    if is_timm_name(path):
        tensors, metadata = read_published(str(path))
        return _ours(tensors, metadata, "timm, published", role, path)
    path = Path(path)
    _check_exists(path)
    if path.suffix == ".safetensors":
        tensors, strings = read_safetensors(path)
        if strings.get("format") == FORMAT:
            return _ours(tensors, BackboneMetadata.from_strings(strings, path), "MST", role, path)
    else:
        tensors = read_pickle(path)
    found = recognise(tensors, role, str(path))
    num_heads = MOCO_V3.num_heads if is_moco_v3(found.tensors) else found.scheme.num_heads  # under any project's names
    return BackboneFile(found.tensors, None, found.scheme.name, found.role, found.interpolation, num_heads)


def _ours(
    tensors: dict[str, Tensor], metadata: BackboneMetadata, scheme: str, role: str | None, path: str | Path
) -> BackboneFile:
    if role not in (None, metadata.role):
        raise ValueError(
            f"{path} holds the {metadata.role}, not the {role}: pass role={metadata.role!r}, or give the {role}'s file"
        )
    return BackboneFile(tensors, metadata, scheme, metadata.role, metadata.pos_embed_interpolation)


def _check_exists(path: Path) -> None:
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.suffix in (".safetensors", ".pth", ".bin", ".pt"))
        inside = f"of the files in it: {', '.join(files)}" if files else "in it; it holds no weights"
        raise FileNotFoundError(f"{str(path)!r} is a folder; give the path of one {inside}")
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no backbone checkpoint {str(path)!r}. Pre-training writes teacher.safetensors and "
            "student.safetensors to its work directory; give the path of one of them, or checkpoint=None for "
            "a random initialisation."
        )
