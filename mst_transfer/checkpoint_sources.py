"""Backbone files of other projects: safe reading, and finding the backbone inside by its content.

A file may nest its tensors (``{"teacher": {"module.backbone.cls_token": …}}``), wrap their names in prefixes
(``module.``, ``encoder.``), or hold a student and a teacher. None of these layouts is listed here: every ViT
has one tensor that can be nothing else (an *anchor*), and whatever stands before it is the prefix.
A source with other tensor names is one more entry of ``SOURCES``.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mst_transfer.checkpoint_checks import list_names
from mst_transfer.checkpoint_pos_embed import MARK
from mst_transfer.compat.serialization import allowed_types

_ROLE_PARTS = {
    "teacher": ("teacher", "model_ema", "state_dict_ema", "ema", "momentum_encoder"),
    "student": ("student",),
}
_HEAD_PARTS = (
    *("head", "head_dist", "fc_norm", "fc", "classifier", "projector", "predictor", "prototypes"),
    *("attn_pool", "mask_token", "mask_embed", "decoder", "decoder_embed", "decoder_pos_embed"),
    *("decoder_blocks", "decoder_norm", "decoder_pred"),
)


@dataclass(frozen=True)
class Source:
    """One naming scheme.

    Attributes:
        name: who uses it.
        anchor: the tensor that identifies a backbone of this scheme.
        rename: turns the scheme's names (prefix removed) into timm's.
    """

    name: str
    anchor: str
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]


SOURCES = (Source("timm, DINO, DeiT, MAE, MST", "patch_embed.proj.weight", dict),)


def is_head_tensor(name: str) -> bool:
    """Whether a tensor (backbone prefix removed) belongs to a head, a decoder or a mask token."""
    return name.split(".", 1)[0] in _HEAD_PARTS


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors and the metadata of a safetensors file.

    Raises:
        ValueError: if it is none, or cut short.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); copy or write it again"
        ) from error


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a ``.pth`` file without running any code that it may contain.

    Args:
        path: a file written by ``torch.save``.

    Returns:
        Tensors under dotted names; nested dictionaries give the parts of the names.

    Raises:
        ValueError: if the file is no pickle, or holds objects other than tensors, containers,
            ``argparse.Namespace`` (which DINO, MAE and timm put beside their weights) and mmengine's log
            histories.
    """
    try:
        content = _load_weights_only(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused: it is no plain file of weights, and unpickling it could run code "
            f"({_reason(error)}). If you trust its origin, load it where it was made and save only "
            "its state_dict()."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a readable checkpoint ({_reason(error)}); copy or write it again"
        ) from error
    return dict(_walk(content, ""))


def _load_weights_only(path: Path) -> Any:
    """Loads with an allow-list; that of mmengine's checkpoints only for a file that asks for it."""

    def load(*allowed: Any) -> Any:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)

    try:
        return load(argparse.Namespace)
    except pickle.UnpicklingError as error:
        if "mmengine." not in _reason(error):
            raise
        return load(argparse.Namespace, *allowed_types())


def _reason(error: Exception) -> str:
    """The object that was refused, or the start of the message."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    return f"it holds {refused.group(1)}" if refused else str(error).split("\n")[0][:200]


def _walk(content: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _walk(value, f"{prefix}.{key}" if prefix else key)


def interpolation_of(tensors: Mapping[str, Tensor]) -> str:
    """How a foreign file's position embeddings were resampled in its training, as far as its content shows.

    Args:
        tensors: all tensors of the file under dotted names.

    Returns:
        ``dino`` for DINO's training checkpoints, which hold the centre of its loss, and for our whole models that bear
        its mark; ``timm`` otherwise.
    """
    marked = any(name.split(".")[-1] == MARK for name in tensors)
    return "dino" if marked or "dino_loss.center" in tensors else "timm"


def extract_backbone(tensors: Mapping[str, Tensor], role: str, source: str) -> dict[str, Tensor]:
    """Finds the backbone among the tensors of a file and gives it timm's names.

    Args:
        tensors: all tensors of the file under dotted names.
        role: ``teacher`` or ``student``; decides where the file holds several networks.
        source: the file's name, for messages.

    Returns:
        The backbone's tensors, and those beside it under the same prefix.

    Raises:
        ValueError: if there is no backbone, or none of that role.
    """
    for scheme in SOURCES:
        prefixes = [
            name.removesuffix(scheme.anchor)
            for name in tensors
            if name == scheme.anchor or name.endswith("." + scheme.anchor)
        ]
        if prefixes:
            prefix = _choose_prefix(prefixes, role, source)
            inside = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
            return scheme.rename(inside)
    anchors = ", ".join(repr(scheme.anchor) for scheme in SOURCES)
    raise ValueError(
        f"{source} holds no ViT backbone: none of its {len(tensors)} tensors is named {anchors} "
        f"(first names: {list_names(tuple(tensors)) or 'none'}). Is it the right file?"
    )


def _choose_prefix(prefixes: list[str], role: str, source: str) -> str:
    """The one prefix whose parts fit the role; a single network without a role fits any."""
    roles = {prefix: _role_of(prefix, prefixes) for prefix in prefixes}
    fitting = [prefix for prefix in prefixes if roles[prefix] == role]
    if not fitting:
        fitting = [prefix for prefix in prefixes if roles[prefix] is None]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(repr(prefix.rstrip(".")) for prefix in prefixes)
    if not fitting:
        other = ", ".join(sorted({str(value) for value in roles.values()}))
        raise ValueError(f"{source} holds no {role}, only {other} (under {found}); pass role={other!r}")
    raise ValueError(
        f"{source} holds several backbones (under {found}) and role={role!r} does not choose one of them; "
        "save the one you want to a file of its own"
    )


def _role_of(prefix: str, prefixes: list[str]) -> str | None:
    """The role that the parts of a prefix name, None if they name none.

    mmengine's ``EMAHook`` swaps the two networks when it saves: ``state_dict`` is the moving average then, and
    ``ema_state_dict`` the network that is trained.
    """
    parts = prefix.split(".")
    if any(other.startswith("ema_state_dict.") for other in prefixes):
        return {"state_dict": "teacher", "ema_state_dict": "student"}.get(parts[0])
    return next((role for role, names in _ROLE_PARTS.items() if any(name in parts for name in names)), None)
