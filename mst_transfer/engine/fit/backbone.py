"""Makes necks and heads take what the backbone of a config gives: widths and patch size.

A recipe names the widths of its own backbone. Another one (``model.backbone.arch=…``) gives others, and the numbers of
whatever reads its maps follow. Backbones of other packages, and what stands behind a neck, are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mst_transfer.configs.datasets import items

if TYPE_CHECKING:
    from torch import Tensor

# Overrides of a recipe that make its architecture another one: a new ``arch`` goes without them.
SHAPE = ("patch_size", "embed_dim", "depth", "depths", "num_heads")
PYRAMID, SWIN = "mst_transfer.TimmViTPyramid", "mst_transfer.TimmSwin"  # both give strides 4 to 32
SIDE = 128  # pixels of an image for looking at shapes


def is_ours(cfg: Any) -> bool:
    """Whether a config has a backbone of this package."""
    return str(((cfg.get("model") or {}).get("backbone") or {}).get("type", "")).startswith("mst_transfer.")


def fit_to_backbone(cfg: Any, options: Mapping[str, Any]) -> list[str]:
    """Gives the neck, or the heads where there is none, the widths and the patch size of the backbone.

    An ``arch`` on the command line goes without the recipe's overrides of its own, ``arch=None`` becomes what the
    checkpoint was made with, and where four strides are wanted ViT and Swin stand in for each other.

    Args:
        cfg: changed in place unless its backbone is of another package.
        options: dotted path → value: the changes of the command line, which ``cfg`` has already.

    Returns:
        A sentence for each change. A backbone that cannot be built changes nothing: ``check_model`` says why.
    """
    if not is_ours(cfg):
        return []
    backbone, changes = cfg.model.backbone, []
    if "model.backbone.arch" in options:
        for name in [name for name in SHAPE if name in backbone and f"model.backbone.{name}" not in options]:
            changes.append(f"model.backbone.{name}={backbone.pop(name)}, of the recipe's architecture, is left out")
    try:
        changes += _choose_architecture(backbone)
        widths, patch_size = _shape_of(backbone)
        changes += _whole_patches(backbone, patch_size)
        for path, reader, taken in readers(cfg.model, widths):
            changes += _fit(path, reader, taken, patch_size)
    except (ValueError, FileNotFoundError):
        return changes
    return changes


def patch_size_of(backbone: Any) -> int:
    """Side in pixels of the patches of a built backbone of this package."""
    return int(backbone.vit.patch_embed.patch_size[0])


def maps_of(backbone: Any, side: int) -> Sequence[Tensor]:
    """Maps [1, D, h, w] of a backbone on the meta device, for a square image of ``side`` pixels."""
    import torch

    channels = backbone.vit.patch_embed.proj.in_channels
    with torch.no_grad():
        return tuple(backbone(torch.empty(1, channels, side, side, device="meta")))


def readers(model: Mapping[str, Any], widths: Sequence[int]) -> Iterator[tuple[str, Any, list[int]]]:
    """What takes the backbone's maps: its path, its config, and the widths of those that it takes.

    Raises:
        ValueError: if a head takes a map that there is not.
    """
    for path, neck in items(model, "neck", "model."):
        yield path, neck, list(widths)
        return
    for name in ("decode_head", "auxiliary_head"):
        for path, head in items(model, name, "model."):
            chosen = head.get("in_index", -1)
            try:
                yield path, head, [widths[i] for i in ([chosen] if isinstance(chosen, int) else chosen)]
            except IndexError as error:
                raise ValueError(
                    f"{path}.in_index={chosen}, but the backbone gives {len(widths)} maps. Next step: see "
                    "model.backbone.out_indices"
                ) from error


def _fit(path: str, reader: Any, widths: list[int], patch_size: int) -> Iterator[str]:
    given = reader.get("in_channels")
    wanted = dict(in_channels=widths[0] if isinstance(given, int) else widths)
    if given is None or (isinstance(given, int) and len(set(widths)) > 1):
        wanted = {}  # of a kind that takes its widths in another way
    elif reader.get("num_convs") == 0 and reader.get("channels") == given:
        wanted["channels"] = widths[0]  # FCNHead without convolutions
    if str(reader.get("type")).endswith("SimpleFeaturePyramid") and reader.get("patch_size", 16) != patch_size:
        wanted["patch_size"] = patch_size
    for name, value in wanted.items():
        before = list(reader[name]) if isinstance(reader.get(name), tuple) else reader.get(name)
        if before != value:
            reader[name] = value
            yield f"{path}.{name}={value}, as the backbone has it, instead of {before}"


def _whole_patches(backbone: Any, patch_size: int) -> Iterator[str]:
    """Rounds ``img_size`` up, as images are padded: positions are resampled once, to the grid that is used."""
    given = backbone.get("img_size") or 0
    sides = tuple(-(-side // patch_size) * patch_size for side in ([given] * 2 if isinstance(given, int) else given))
    if sides != ((given, given) if isinstance(given, int) else tuple(given)):
        backbone["img_size"] = sides
        yield f"model.backbone.img_size={sides}, whole patches of {patch_size} px, instead of {given}"


def _choose_architecture(backbone: Any) -> Iterator[str]:
    """Fills in ``arch=None``, and takes the adapter that is made for the architecture."""
    from mst_transfer.models.backbones.vit_create import read_architecture

    arch = backbone.get("arch", "swin_tiny_patch4_window7_224" if backbone["type"] == SWIN else None)  # their defaults
    if arch is None:
        path = backbone.get("checkpoint") or (backbone.get("init_cfg") or {}).get("checkpoint")
        arch, own = read_architecture(path, backbone.get("role", "teacher"))
        backbone.update({**own, **backbone, "arch": arch})
        yield f"model.backbone.arch={arch!r} {own or ''}, as {path} has it"
    kind = SWIN if arch.startswith("swin") else PYRAMID
    if backbone["type"] in {SWIN, PYRAMID} - {kind}:
        backbone["type"] = kind
        backbone.pop("img_size", None)  # a Swin has no positions, and those of a ViT are resampled
        yield f"model.backbone.type={kind!r}, which is made for {arch}"


def _shape_of(backbone_cfg: Any) -> tuple[list[int], int]:
    """Widths of the maps, and side of the patches in pixels.

    Raises:
        ValueError: if the backbone cannot be built so.
    """
    import torch

    from mst_transfer.registry import MODELS

    try:
        with torch.device("meta"):
            backbone = MODELS.build(backbone_cfg)
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    return [grid.shape[1] for grid in maps_of(backbone, SIDE)], patch_size_of(backbone)
