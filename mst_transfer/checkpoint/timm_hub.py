"""Weights that timm publishes, by name: ``timm://vit_small_patch16_224.dino``.

timm fetches them once into the cache of the Hugging Face Hub (``HF_HOME``) or of ``torch.hub`` (``TORCH_HOME``) and
takes them from there later, without a network too.
"""

import difflib
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from mst_transfer.checkpoint.hf_hub import SECONDS, reason
from mst_transfer.checkpoint.metadata import BackboneMetadata

_SCHEME = "timm:/"  # pathlib makes one slash of two
_SAFE, _PICKLE = "model.safetensors", "pytorch_model.bin"  # timm's names in a repository of the hub
_TRAINED_AS_DINO = ("dino", "lvd142m")  # tags; DINOv2 with registers is excepted below


def is_timm_name(path: str | Path) -> bool:
    """Whether a checkpoint is given by the name of a timm model."""
    return str(path).startswith(_SCHEME)


def read_published(address: str) -> tuple[dict[str, Tensor], BackboneMetadata]:
    """Takes weights from timm's cache, or fetches them: those of ``timm://NAME``, with or without a tag.

    Returns:
        The backbone's tensors without head, and metadata made from timm's.

    Raises:
        ValueError: timm has no such model or weights, or cannot get them.
    """
    name = address.removeprefix(_SCHEME).lstrip("/")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=4, cutoff=0.4)
        raise ValueError(f"{address}: timm {timm.__version__} has no model {name!r}; near: {', '.join(near) or 'none'}")
    try:
        overlay = _cached_or_reachable(name)
        model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except Exception as error:  # of the network, the hub, the cache or timm: there is no common base
        raise ValueError(
            f"{address}: timm could not get the weights ({reason(error)}). Names with weights: "
            f"timm.list_pretrained('{name.split('.')[0]}*'). Without a network, run timm.create_model({name!r}, "
            "pretrained=True) on a machine that has one, copy its cache (HF_HOME, TORCH_HOME) here and set "
            "HF_HUB_OFFLINE=1, or give the path of a downloaded file."
        ) from error
    return dict(model.state_dict()), _metadata(model, name)


def _cached_or_reachable(name: str) -> dict[str, str]:
    """What timm's config is to say of the weights: the file where the hub's cache has it, which is then not asked.

    Otherwise asks once, for five seconds at most, whether the hub answers: its own library tries each file six times.
    """
    from huggingface_hub import hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import get_session

    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return {}
    repository, _, revision = config.hf_hub_id.partition("@")
    wanted = config.hf_hub_filename or _SAFE
    found = [try_to_load_from_cache(repository, file, revision=revision or None) for file in (wanted, _PICKLE)]
    if isinstance(found[0], str) and wanted.endswith(".safetensors"):
        return {"file": found[0]}
    if not any(isinstance(file, str) for file in found):
        get_session().head(hf_hub_url(repository, wanted, revision=revision or None), timeout=SECONDS)
    return {}


def _metadata(model: Any, name: str) -> BackboneMetadata:
    config = model.pretrained_cfg
    as_dino = config.get("tag", "").split(".")[0] in _TRAINED_AS_DINO and "_reg" not in name
    return BackboneMetadata(
        arch=name,
        arch_kwargs={},
        patch_size=model.patch_embed.patch_size[0],
        img_size=tuple(model.patch_embed.img_size),
        embed_dim=model.patch_embed.proj.weight.shape[0],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        role="teacher",
        pos_embed_interpolation="dino" if as_dino else "timm",
        provenance={"timm": name, "tag": config.get("tag"), "version": timm.__version__},
    )
