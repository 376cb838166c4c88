"""Going on from released weights instead of random ones."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mst_transfer.checkpoint import load_backbone
from mst_transfer.checkpoint.files import read_pickle
from mst_transfer.checkpoint.normalisation import normalisation_of
from mst_transfer.checkpoint.read import find_backbone
from mst_transfer.checkpoint.recognise import BackboneFile

TEACHER_HEADS = ("teacher.head.", "teacher.module.head.", "state_dict.teacher.head.")  # DINO's, and our epoch_N.pth
CENTERS = ("dino_loss.center", "state_dict.dino_loss.center")


def start_from(network: Any, path: str, mean: Sequence[float], std: Sequence[float], arch: str | None = None) -> None:
    """Load a backbone into a student; all of it or an error. Logs what was loaded.

    Args:
        network: has ``backbone.vit`` (timm's).
        path: see ``mst_transfer.checkpoint.read_backbone``; the teacher where the file holds both, the student
            where it holds only that.
        mean, std: the config's; weights that saw images of others are refused.
        arch: the config's: with a tag it names timm's weights, and so their normalisation.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another architecture or normalisation, or tensors missing; or timm has no weights of that tag.
    """
    file = find_backbone(path, role=None)
    _check_normalisation(file, mean, std, arch)
    interpolation = getattr(network.backbone, "pos_embed_interpolation", None)  # the config's, in every pass
    report = load_backbone(network.backbone.vit, file, pos_embed_interpolation=interpolation)
    print_log(report.table(), logger="current")
    told = file.metadata is not None or file.interpolation == "dino"  # DINO's published backbones bear no mark
    if interpolation is not None and told and file.interpolation != interpolation:
        print_log(
            f"{path}: position embeddings were resampled as {file.interpolation} does, here as {interpolation} does, "
            f"which changes the features of local views; as before: model.backbone.pos_embed_interpolation = "
            f"{file.interpolation!r}",
            logger="current",
            level=logging.WARNING,
        )


def _check_normalisation(file: BackboneFile, mean: Sequence[float], std: Sequence[float], arch: str | None) -> None:
    """Refuse weights that saw images of another mean and variance, where their file or ``arch`` says it."""
    found, path = normalisation_of(file.metadata, arch), file.source
    if not found.known:
        print_log(f"{path} does not say how its images were normalised; here: {tuple(mean)}, {tuple(std)}", "current")
        return
    for name, ours, theirs in (("mean", mean, found.mean), ("std", std, found.std)):
        if not np.allclose(ours, theirs, atol=1e-4):
            raise ValueError(
                f"{path} was trained with images of {name} {theirs} ({found.origin}), this config has {tuple(ours)}: "
                f"set model.mean = {found.mean} and model.std = {found.std}"
            )


def load_head(head: nn.Module, center: Tensor, path: str) -> None:
    """Load the head of a file's teacher, and the centre of its outputs in place where the file has one.

    Raises:
        ValueError: the file has no such head.
    """
    tensors = {} if path.endswith(".safetensors") else read_pickle(Path(path))
    given = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        for prefix in TEACHER_HEADS
        if name.startswith(prefix)
    }
    if not given:
        raise ValueError(
            f"{path}: model.init_head = True, but the file holds no teacher's head, as DINO's full checkpoints and our "
            "epoch_N.pth do. Give one of those, or init_head=False for a fresh head"
        )
    try:
        head.load_state_dict(given)
    except RuntimeError as error:
        faults = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ValueError(
            f"{path}: model.init_head = True, but its head does not fit: {faults} "
            "Set model.head to the file's sizes, or init_head=False for a fresh head"
        ) from error
    found = next((tensors[name] for name in CENTERS if name in tensors), None)
    if found is not None:
        with torch.no_grad():
            center.copy_(found)
    note = "without a centre, which starts at zero" if found is None else "with the centre"
    print_log(f"head: {len(given)} tensors from {path}, {note}", logger="current")
