"""Writes backbone checkpoints."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mst_transfer.checkpoint.errors import is_under, list_names
from mst_transfer.checkpoint.metadata import BackboneMetadata
from mst_transfer.checkpoint.recognise import is_head_tensor
from mst_transfer.files.checksums import write_safetensors


def save_backbone(path: str | Path, state_dict: Mapping[str, Tensor], metadata: BackboneMetadata) -> None:
    """Writes a backbone checkpoint under a temporary name, then renames it: a reader never sees half a file.

    Its metadata hold a checksum, which reading compares.

    Args:
        path: where to write; folders are made. Conventionally ends in ``.safetensors``.
        state_dict: backbone tensors under timm's names; no head, no mask token. The norm
            behind the pooling (``fc_norm``) may be among them: with it nothing of a backbone is lost.
        metadata: must agree with the tensors.

    Raises:
        FileNotWrittenError: no space, no right; an older file stays as it was.
        ValueError: if the tensors are not a backbone's, or disagree with ``metadata``.
    """
    if "patch_embed.proj.weight" not in state_dict:
        raise ValueError(
            "state_dict has no 'patch_embed.proj.weight': give the backbone's own state_dict(), without a "
            f"prefix (its first names: {list_names(tuple(state_dict))})"
        )
    extra = tuple(name for name in state_dict if is_head_tensor(name) and not is_under(name, ("fc_norm",)))
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
    write_safetensors(path, tensors, metadata.to_strings())
