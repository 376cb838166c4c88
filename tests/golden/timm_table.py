"""The table "family x (right, refused, wrong)" of docs/checkpoints.md: every ViT and Swin that timm can build.

    python tests/golden/timm_table.py [--markdown OUT] [--only NAME …]

Each architecture is built with two blocks and random weights; its bare state dict, which names no architecture, goes
through recognition into a model, whose features are compared with those of the one that was built. A file has to be
right or refused: features that differ without a word are what must not be.

Random weights keep the residual stream small, so that an epsilon of a norm shows as well as an activation does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mst_transfer.checkpoint import architecture_of, load_backbone

FAMILIES = (
    *("vision_transformer", "deit", "eva", "beit", "naflexvit", "vision_transformer_hybrid"),
    *("vision_transformer_relpos", "vision_transformer_sam", "swin_transformer", "swin_transformer_v2"),
    *("swin_transformer_v2_cr", "deepseek_vit", "gemma4_vit", "qwen3_vit"),
)
WIDE = 2048  # from which on one block has to do
TOLERANCE = 2e-5  # of the largest feature
STREAM = 0.003
_INTO_THE_STREAM = re.compile(r"patch_embed|pos_embed|_token|\.(proj|fc2)\.(weight|bias)$")


@dataclass(frozen=True)
class Outcome:
    """What became of an architecture's state dict.

    Attributes:
        verdict: ``right``, ``refused`` or ``wrong``.
        detail: the architecture that was inferred and the difference, or why it was refused.
    """

    name: str
    family: str
    verdict: str
    detail: str


def names(family: str) -> list[str]:
    """Architectures of a module of timm."""
    return timm.list_models(module=family)


def build(name: str) -> nn.Module:
    """Two blocks (of each stage; one where they are huge), for small images as far as the architecture takes a size.

    Raises:
        TypeError: timm has changed so that it cannot be built shallow: it is not built deep instead.
    """
    shallow: dict[str, Any] = {"depth": 1 if "_7b_" in name else 2}
    if name.startswith("swin"):
        shallow = {"depths": (2, 2, 2, 2)}
    elif name.endswith("_sapiens2"):
        shallow["num_kv_heads"] = 4  # which it lists for every block
    patch = re.search(r"patch(\d+)", name)
    small = {"img_size": 4 * int(patch[1] if patch else 16)}
    for options in [shallow] if name.startswith("swin") else [shallow | small, shallow]:
        try:
            return perturb(timm.create_model(name, num_classes=2, **options))
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            reason = error
    raise TypeError(f"{name} cannot be built with {shallow}: {reason}")


@torch.no_grad()
def perturb(model: nn.Module) -> nn.Module:
    """Random values everywhere, those that start as zero or one included."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 and len(parameter) > 1 else 10
        parameter.normal_(0, fan_in**-0.5, generator=generator)
        if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
            parameter += 1
        if _INTO_THE_STREAM.search(name):
            parameter *= STREAM
    return model.eval()


@torch.no_grad()
def examine(name: str, family: str, folder: Path) -> Outcome:
    """One row: recognise, load, compare."""
    model: Any = build(name)
    path = folder / "state.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
    try:
        arch, options = architecture_of(path)
        found: Any = timm.create_model(arch, num_classes=0, **options).eval()
        report = load_backbone(found, path)
    except ValueError as error:
        return Outcome(name, family, "refused", str(error).replace(str(path), "FILE"))
    size = model.patch_embed.img_size
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = model.forward_features(image)
    try:
        features = found.forward_features(image)
    except AssertionError as error:  # a model for images of another size
        return Outcome(name, family, "wrong", f"{arch} {options}: {error}")
    if expected.shape != features.shape:
        return Outcome(name, family, "wrong", f"{arch} {options}: shapes {expected.shape} {features.shape}")
    difference = ((expected - features).abs().max() / expected.abs().max()).item()
    verdict = "right" if difference < TOLERANCE and not report.resized else "wrong"
    return Outcome(name, family, verdict, f"{arch} {options}: {difference:.1e}")
