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

TEACHER_HEADS = ("teacher.head.", "teacher.module.head.", "state_dict.teacher.head.")  # DINO's, and our epoch_N.pth
CENTERS = ("dino_loss.center", "state_dict.dino_loss.center")


def check_normalisation(path: str, mean: Sequence[float], std: Sequence[float], arch: str | None = None) -> None:
    """Refuse weights that saw images of another mean and variance, where their file or the config's ``arch`` says it.

    Args:
        path: of the weights.
        mean, std: the config's.
        arch: the config's: with a tag it names timm's weights, and so their normalisation.

    Raises:
        ValueError: names both; or timm has no weights of that tag.
    """
    found = normalisation_of(find_backbone(path, role=None).metadata, arch)
    if not found.known:
        print_log(f"{path} does not say how its images were normalised; here: {tuple(mean)}, {tuple(std)}", "current")
        return
    for name, ours, theirs in (("mean", mean, found.mean), ("std", std, found.std)):
        if not np.allclose(ours, theirs, atol=1e-4):
            raise ValueError(
                f"{path} was trained with images of {name} {theirs} ({found.origin}), this config has {tuple(ours)}: "
                f"set model.mean = {found.mean} and model.std = {found.std}"
            )


def start_from(network: Any, path: str, center: Tensor | None = None, with_head: bool = False) -> None:
    """Load a backbone, and the head if asked for, into a student; all of it or an error. Logs what was loaded.

    Args:
        network: has ``backbone.vit`` (timm's) and ``head``.
        path: see :func:`mst_transfer.checkpoint.read_backbone`; the teacher where the file holds both, the student
            where it holds only that.
        center: of the teacher's outputs; belongs to the head, and is loaded in place with it where the file has one.
        with_head: the head of the file's teacher goes to ``network.head``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another architecture, tensors missing, or no such head in the file.
    """
    interpolation = getattr(network.backbone, "pos_embed_interpolation", None)  # the config's, in every pass
    report = load_backbone(network.backbone.vit, path, role=None, pos_embed_interpolation=interpolation)
    print_log(report.table(), logger="current")
    file = find_backbone(path, role=None)
    told = file.metadata is not None or file.interpolation == "dino"  # DINO's published backbones bear no mark
    if interpolation is not None and told and file.interpolation != interpolation:
        print_log(
            f"{path}: position embeddings were resampled as {file.interpolation} does, here as {interpolation} does, "
            f"which changes the features of local views; as before: model.backbone.pos_embed_interpolation = "
            f"{file.interpolation!r}",
            logger="current",
            level=logging.WARNING,
        )
    if with_head:
        _load_head(network.head, path, center)


def _load_head(head: nn.Module, path: str, center: Tensor | None) -> None:
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
    wanted = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in given.items()}
    if wanted != found:
        faults = sorted(
            f"{name}: file {found.get(name, 'nothing')}, model {wanted.get(name, 'nothing')}"
            for name in wanted.keys() | found.keys()
            if wanted.get(name) != found.get(name)
        )
        raise ValueError(
            f"{path}: model.init_head = True, but its head does not fit; {len(faults)} tensors differ, e.g. "
            f"{'; '.join(faults[:3])}. Set model.head to the file's sizes, or init_head=False for a fresh head"
        )
    head.load_state_dict(given)
    found_center = next((tensors[name] for name in CENTERS if name in tensors), None)
    if center is not None and found_center is not None:
        with torch.no_grad():
            center.copy_(found_center)
    note = "with the centre" if found_center is not None else "without a centre, which starts at zero"
    print_log(f"head: {len(given)} tensors from {path}, {note}", logger="current")
