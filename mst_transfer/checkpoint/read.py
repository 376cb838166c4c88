"""Reads backbone checkpoints: our own, those of other projects, and what timm and others publish."""

from pathlib import Path

from torch import Tensor

from mst_transfer.checkpoint.addresses import fetch, is_address
from mst_transfer.checkpoint.files import read_pickle, read_safetensors
from mst_transfer.checkpoint.metadata import FORMAT, ROLES, BackboneMetadata, carried_strings
from mst_transfer.checkpoint.recognise import BackboneFile, recognise
from mst_transfer.checkpoint.timm_hub import is_timm_name, read_published


def read_backbone(path: str | Path, role: str | None = "teacher") -> tuple[dict[str, Tensor], BackboneMetadata | None]:
    """Reads backbone tensors under timm's names from our own file or from one of another project.

    Args:
        path: ``.safetensors``, or a pickle such as ``.pth``, which is only read with ``weights_only=True``; or
            ``timm://NAME`` for weights that timm publishes, e.g. ``timm://vit_small_patch16_224.dino``;
            ``hf://ORG/REPO[/FILE][@REVISION]`` on the Hugging Face Hub; or ``zoo://NAME``, of this project.
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


def find_backbone(path: str | Path | BackboneFile, role: str | None = "teacher") -> BackboneFile:
    """Reads a file once for all that is asked of it: functions that take a path take the result as well, as it is.

    Arguments and errors are those of ``read_backbone``.
    """
    if isinstance(path, BackboneFile):
        return path
    if role not in (None, *ROLES):
        raise ValueError(f"role={role!r} is not one of {ROLES}")
    if is_timm_name(path):
        tensors, metadata = read_published(str(path))
        return _ours(tensors, metadata, "timm, published", role, path)
    path, source = fetch(str(path)) if is_address(path) else (Path(path), str(path))
    _check_exists(path)
    if path.suffix == ".safetensors":
        tensors, strings = read_safetensors(path)
        strings = carried_strings(strings)
        if strings.get("format") == FORMAT:
            return _ours(tensors, BackboneMetadata.from_strings(strings, path), "MST", role, source)
    else:
        tensors = read_pickle(path)
    return recognise(tensors, role, source)


def _ours(
    tensors: dict[str, Tensor], metadata: BackboneMetadata, scheme: str, role: str | None, path: str | Path
) -> BackboneFile:
    if role not in (None, metadata.role):
        raise ValueError(
            f"{path} holds the {metadata.role}, not the {role}: pass role={metadata.role!r}, or give the {role}'s file"
        )
    return BackboneFile(str(path), tensors, metadata, scheme, metadata.role, metadata.pos_embed_interpolation)


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
