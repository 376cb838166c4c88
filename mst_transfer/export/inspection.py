"""Collects the facts of a file of weights that ``mst inspect`` shows."""

from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor

from mst_transfer.checkpoint import ROLES, BackboneFile, architecture_of, find_backbone, load_backbone
from mst_transfer.checkpoint.addresses import fetch, is_address
from mst_transfer.checkpoint.normalisation import timm_remark
from mst_transfer.checkpoint.recognise import is_head_tensor
from mst_transfer.export.source_model import create
from mst_transfer.files.checksums import sha256_of


def inspect(path: str | Path, role: str | None = None) -> dict[str, Any]:
    """Reads a file and says what it holds and whether it would load.

    Arguments and errors are those of ``mst_transfer.checkpoint.read_backbone``.

    Returns:
        Facts by topic, of plain types: ``file``, ``names``, ``architecture``, ``weights``, ``load``, ``use``.
    """
    file = find_backbone(path, role)
    facts: dict[str, Any] = {"file": {"path": file.source, **_file(path)}, "names": _names(file, path)}
    facts["architecture"], model = _architecture(file)
    facts["weights"] = _weights(file)
    facts["load"] = _load(model, file)
    if "refused" not in facts["load"]:
        facts["use"] = config_lines(facts["architecture"], str(path), file.role)
    return facts


def _file(path: str | Path) -> dict[str, Any]:
    path = fetch(str(path))[0] if is_address(path) else Path(path)
    if not path.is_file():  # published by timm
        return {}
    kind = "safetensors" if path.suffix == ".safetensors" else "pickle, read without running code"
    return {"kind": kind, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _names(file: BackboneFile, path: str | Path) -> dict[str, Any]:
    """Whose names, and which networks."""
    roles = [file.role] if file.role else []
    if file.metadata is None and file.role:
        other = next(role for role in ROLES if role != file.role)
        try:
            roles += [other] if find_backbone(path, other).role == other else []
        except ValueError:  # there is no other
            pass
    names: dict[str, Any] = {"source": file.scheme, "roles": sorted(roles, reverse=True), "read": file.role}
    if file.metadata is not None:
        names["provenance"] = file.metadata.provenance
    return names


def _architecture(file: BackboneFile) -> tuple[dict[str, Any], Any]:
    """What the model is, and the model without memory for its tensors; None if the architecture is unknown."""
    metadata = file.metadata
    try:
        arch, options = architecture_of(file)
        model: Any = create(arch, {**options, "device": "meta"})
    except ValueError as error:
        return {"arch": None, "why": str(error)}, None
    state = model.state_dict()
    facts: dict[str, Any] = {
        "arch": arch,
        "arch_kwargs": dict(options),
        "known_from": "metadata" if metadata else "tensors",
        "class": type(model).__name__,
        "patch": int(model.patch_embed.patch_size[0]),
        "img_size": list(model.patch_embed.img_size),
        "grid": list(model.patch_embed.grid_size),
        "token_norm": "norm.weight" in state,
    }
    facts |= _swin_shape(model) if hasattr(model, "layers") else _vit_shape(model, state)
    facts["pos_embed_interpolation"] = file.interpolation if "pos_embed" in state else None
    facts["mean"], facts["std"] = (list(metadata.mean), list(metadata.std)) if metadata else (None, None)
    facts["normalisation"] = timm_remark(model, metadata)
    return facts, model


def _swin_shape(model: Any) -> dict[str, Any]:
    return {
        "width": model.patch_embed.proj.out_channels,
        "depth": [len(stage.blocks) for stage in model.layers],
        "heads": [stage.blocks[0].attn.num_heads for stage in model.layers],
        "window": model.layers[0].blocks[0].window_size[0],
        "positions": "relative",
    }


def _vit_shape(model: Any, state: dict[str, Tensor]) -> dict[str, Any]:
    relative = any("relative_position_bias_table" in name for name in state)
    kinds = {"absolute": "pos_embed" in state, "relative": relative, "rotary": getattr(model, "rope", None) is not None}
    return {
        "width": model.embed_dim,
        "depth": len(model.blocks),
        "heads": model.blocks[0].attn.num_heads,
        "class_token": "cls_token" in state,
        "registers": state["reg_token"].shape[1] if "reg_token" in state else 0,
        "layer_scale": any(name in state for name in ("blocks.0.ls1.gamma", "blocks.0.gamma_1")),
        "positions": " and ".join(kind for kind, there in kinds.items() if there) or "none",
    }


def _weights(file: BackboneFile) -> dict[str, Any]:
    kept = {name: tensor for name, tensor in file.tensors.items() if not is_head_tensor(name)}
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in kept.values())
    return {
        "tensors": len(kept),
        "parameters": sum(tensor.numel() for tensor in kept.values()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in kept.values()),
        "dtypes": dict(dtypes),
        "not_finite": [name for name, tensor in kept.items() if not bool(tensor.isfinite().all())],
        "heads": [name for name in file.tensors if name not in kept],
    }


def _load(model: Any, file: BackboneFile) -> dict[str, Any]:
    """Loads into a model of the architecture that was found, as training would."""
    if model is None:
        return {"refused": "the architecture is unknown: name it with arch=… in the config, --arch in mst convert"}
    try:
        report = load_backbone(model.to_empty(device="cpu"), file)
    except ValueError as error:
        return {"refused": str(error)}
    return {
        "loaded": len(report.loaded),
        "resized": report.resized,
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "skipped": list(report.skipped),
        "remark": report.remark,
    }


def config_lines(architecture: dict[str, Any], path: str, role: str | None) -> str:
    """A backbone for a config of mmdet or mmseg."""
    kind = "mst_transfer.TimmSwin" if architecture["class"] == "SwinTransformer" else "mst_transfer.TimmViTPyramid"
    options = dict(architecture["arch_kwargs"])
    if architecture["class"] == "SwinTransformer":
        options.pop("img_size", None)  # TimmSwin takes any size
    if not architecture["token_norm"]:  # it stands behind the pooling, where heads of other tasks have no use for it
        options["out_norm"] = "none"
    words = "".join(f", {name}={value!r}" for name, value in options.items())
    chosen = f', role="{role}"' if role == "student" else ""
    return (
        f'model = dict(backbone=dict(type="{kind}", arch="{architecture["arch"]}"{words}, checkpoint="{path}"{chosen}))'
    )
