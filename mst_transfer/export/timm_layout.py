"""Layouts under timm's names: a file for timm, a folder for timm and transformers, and our own checkpoint.

The folder is the layout of timm's models on the Hugging Face Hub: ``config.json`` names architecture, overrides and
preprocessing, ``model.safetensors`` holds the weights. timm reads it as ``local-dir:`` or ``hf-hub:``; transformers,
from 4.53 on, which knows the overrides, wraps timm's model.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from mst_transfer.checkpoint import save_backbone
from mst_transfer.checkpoint.metadata import CARRIED
from mst_transfer.export.convert import Target
from mst_transfer.export.inspection import config_lines
from mst_transfer.export.source_model import ConversionError, SourceModel, read_source_model
from mst_transfer.export.verify import (
    Agreement,
    as_timm,
    compare,
    features,
    imported,
    read_back,
    resampling_remark,
    two_sizes,
)

WEIGHTS = "model.safetensors"


def write_file(original: SourceModel, path: Path) -> None:
    """Writes the tensors under timm's names, as safetensors or with ``torch.save``."""
    tensors = {name: tensor.contiguous() for name, tensor in original.tensors.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"format": "pt", CARRIED: json.dumps(original.metadata.to_strings())})
    else:
        torch.save(tensors, path)


def verify_file(original: SourceModel, path: Path) -> Agreement:
    """Loads the file with timm, which itself checks that no tensor is missing or left over."""
    arguments = {"num_classes": 0, **original.metadata.arch_kwargs, "checkpoint_path": str(path)}
    create = partial(timm.create_model, original.metadata.arch, **arguments)
    agreement = _agreement(original, "timm.create_model", create)
    read_back(original, path)
    return agreement


def _agreement(original: SourceModel, by: str, create: Callable[[], Any]) -> Agreement:
    """Compares with timm models that were loaded by others, at the checkpoint's size and at another."""

    def found(size: tuple[int, int], image: torch.Tensor) -> torch.Tensor:
        model = create().eval()
        if size != original.metadata.img_size:
            original.resize(model, size)
        return features(model, image)

    remarks = resampling_remark(original, as_timm, "timm")
    return compare(by, two_sizes(original), lambda size: original.model(size, as_timm), found, remarks)


def file_usage(original: SourceModel, path: Path) -> str:
    """Python that loads the file."""
    options = "".join(f", {name}={value!r}" for name, value in original.metadata.arch_kwargs.items())
    classes = "" if "num_classes" in original.metadata.arch_kwargs else ", num_classes=0"
    return f'timm.create_model("{original.metadata.arch}"{classes}{options}, checkpoint_path="{path}")'


def config_of(original: SourceModel) -> dict[str, Any]:
    """The content of ``config.json``, as ``timm.models.save_for_hf`` lays it out.

    Without ``num_classes`` among the overrides: transformers passes its own, and Python takes no argument twice.
    """
    metadata = original.metadata
    return {
        "architecture": metadata.arch.split(".")[0],
        "num_classes": 0,
        "num_features": original.skeleton.num_features,
        "global_pool": original.skeleton.global_pool,
        "model_args": {name: value for name, value in metadata.arch_kwargs.items() if name != "num_classes"},
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [3, *metadata.img_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": list(metadata.mean),
            "std": list(metadata.std),
            "first_conv": "patch_embed.proj",
            "classifier": None,
        },
    }


def write_folder(original: SourceModel, path: Path) -> None:
    """Writes ``config.json`` and ``model.safetensors``."""
    path.mkdir()
    write_file(original, path / WEIGHTS)
    (path / "config.json").write_text(json.dumps(config_of(original), indent=2) + "\n", encoding="utf-8")


def verify_folder(original: SourceModel, path: Path) -> Agreement:
    """Loads the folder with timm, and with transformers if it can be imported."""
    read_back(original, path / WEIGHTS)
    create = partial(timm.create_model, f"local-dir:{path}", pretrained=True, num_classes=0)
    by_timm = _agreement(original, "timm.create_model", create)
    transformers, unasked = imported("transformers")
    if transformers is None:
        return replace(by_timm, remarks=(*unasked, *by_timm.remarks))
    by = f"timm.create_model and transformers {transformers.__version__}: TimmWrapperModel"
    return _agreement(original, by, lambda: _load_with_transformers(path))


def _load_with_transformers(path: Path) -> Any:
    """The timm model inside transformers' of a folder, in float32, if transformers uses every tensor."""
    from transformers import TimmWrapperModel

    wrapper: Any = TimmWrapperModel
    model, info = wrapper.from_pretrained(path, output_loading_info=True, local_files_only=True)
    if info["missing_keys"] or info["unexpected_keys"]:
        raise ConversionError(
            f"transformers misses {list(info['missing_keys'])} in {path}, unused: {list(info['unexpected_keys'])}"
        )
    return model.float().timm_model


def folder_usage(original: SourceModel, path: Path) -> str:
    """Python that loads the folder."""
    return (
        f'transformers.AutoModel.from_pretrained("{path}")\n'
        f'timm.create_model("local-dir:{path}", pretrained=True, num_classes=0)'
    )


def write_own(original: SourceModel, path: Path) -> None:
    """Writes a backbone checkpoint: tensors and metadata (``mst_transfer.checkpoint``)."""
    save_backbone(path, original.tensors, original.metadata)


def verify_own(original: SourceModel, path: Path) -> Agreement:
    """Loads the file into a fresh model with nothing but its metadata to go by."""
    again = read_source_model(path)
    if again.metadata != original.metadata:
        raise ConversionError(f"{path} was read again with metadata {again.metadata} instead of {original.metadata}")
    read_back(original, path)
    by = "mst_transfer.checkpoint.load_backbone"
    return compare(by, two_sizes(original), original.model, lambda size, image: features(again.model(size), image))


def own_usage(original: SourceModel, path: Path) -> str:
    """Config lines that use the file."""
    kind, metadata = type(original.skeleton).__name__, original.metadata
    facts = {"class": kind, "token_norm": "norm.weight" in original.tensors, **asdict(metadata)}
    return config_lines(facts, str(path), metadata.role)


TIMM = Target("timm", (".safetensors", ".pth"), write_file, verify_file, file_usage)
HUGGING_FACE = Target("hf", (), write_folder, verify_folder, folder_usage)
MST = Target("mst", (".safetensors",), write_own, verify_own, own_usage)
