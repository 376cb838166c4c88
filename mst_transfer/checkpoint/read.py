"""Reads backbone checkpoints: our own, and those of other projects."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mst_transfer.checkpoint.files import read_pickle, read_safetensors
from mst_transfer.checkpoint.metadata import FORMAT, ROLES, BackboneMetadata
from mst_transfer.checkpoint.recognise import extract_backbone, interpolation_of


def read_backbone(path: str | Path, role: str = "teacher") -> tuple[dict[str, Tensor], BackboneMetadata | None]:
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
    return read_file(path, role)[:2]


def read_file(path: str | Path, role: str) -> tuple[dict[str, Tensor], BackboneMetadata | None, str]:
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
