"""Builds a config's model without numbers before a run: do checkpoint, widths, strides and map sizes agree?"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from mst_transfer.checkpoint import load_backbone, read_backbone
from mst_transfer.checkpoint.architecture import architecture_of
from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.engine.fit.backbone import SIDE, is_ours, maps_of, patch_size_of, readers
from mst_transfer.engine.plan.meta_model import build_meta_model


def check_model(cfg: Any, begins: bool) -> None:
    """Builds the model, loads the backbone's checkpoint into it, and compares its maps with the strides of the heads.

    Nothing is checked if the backbone is of another package. ``begins``: the run begins with the backbone's checkpoint.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if the model cannot be built, or one of these does not fit.
    """
    if not is_ours(cfg):
        return
    if begins:
        _check_normalisation(cfg.model)
    model: Any = build_meta_model(cfg)
    if begins:
        _check_checkpoint(cfg, model.backbone)
    strides = list(_declared_strides(model))
    side = math.lcm(patch_size_of(model.backbone), *(stride for _, each in strides for stride in each))
    side *= math.ceil(SIDE / side)  # of a square that every patch and every stride divides
    maps = maps_of(model.backbone, side)
    widths = [grid.shape[1] for grid in maps]
    list(readers(cfg.model, widths))
    if getattr(model, "with_neck", False):
        try:
            maps = model.neck(maps)
        except NotImplementedError:  # a neck that is not made for torch's meta device
            return
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"model.neck ({type(model.neck).__name__}) cannot take the backbone's {len(widths)} maps of widths "
                f"{widths}: {error}. Next step: see model.neck.in_channels and model.backbone.out_indices"
            ) from error
    for path, each in strides:
        _compare(path, each, [tuple(grid.shape[-2:]) for grid in maps], side)


def _check_normalisation(model: Any) -> None:
    """The backbone's checkpoint is there, can be read, and has the config's mean and std."""
    path = model.backbone.get("checkpoint") or (model.backbone.get("init_cfg") or {}).get("checkpoint")
    if path is None:
        return
    try:
        _, metadata = read_backbone(path, model.backbone.get("role", "teacher"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"model.backbone.checkpoint: {error} On the command line: --cfg-options "
            "model.backbone.checkpoint=PATH, or model.backbone.checkpoint=None for random weights."
        ) from None
    preprocessor = model.get("data_preprocessor") or {}
    for name in ("mean", "std"):
        if metadata is None or preprocessor.get(name) is None:
            continue
        ours = [value / 255 for value in preprocessor[name]]
        theirs = getattr(metadata, name)
        if any(abs(a - b) > 2e-3 for a, b in zip(ours, theirs, strict=True)):
            raise ValueError(
                f"model.data_preprocessor.{name}={list(preprocessor[name])} is not what {path} was trained "
                f"with: set it to {[round(255 * value, 3) for value in theirs]}"
            )


def _check_checkpoint(cfg: Any, backbone: Any) -> None:
    """Goes through the loading of the backbone's weights; the meta device keeps none of them."""
    path, role = backbone.checkpoint, backbone.role
    if path is None:
        return
    try:
        load_backbone(backbone.vit, path, role=role, may_miss=backbone.may_miss, unused=backbone._unused)
    except BackboneRefusedError as error:
        advice = ""
        with suppress(ValueError):
            arch, own = architecture_of(path, role)
            ours = {"arch": arch, **own, **cfg.model.backbone}
            if any(ours[name] != value for name, value in {"arch": arch, **own}.items()):
                advice = (
                    " Next step: --cfg-options model.backbone.arch=None takes what the file was made with, and necks "
                    "and heads follow"
                )
        raise ValueError(f"model.backbone.checkpoint: {error}{advice}") from error


def _declared_strides(model: Any) -> Iterator[tuple[str, list[int]]]:
    """Path of everything that counts in strides of the neck's maps, and its strides in pixels, finest first."""
    for path, module in model.named_modules():
        generator = getattr(module, "prior_generator", None)
        if generator is not None and hasattr(generator, "strides"):
            pairs = [stride if isinstance(stride, Sequence) else (stride, stride) for stride in generator.strides]
            yield f"model.{path}.prior_generator", [int(pair[0]) for pair in pairs]
        if hasattr(module, "featmap_strides"):
            yield f"model.{path}", [int(stride) for stride in module.featmap_strides]


def _compare(path: str, strides: Sequence[int], sizes: Sequence[tuple[int, ...]], side: int) -> None:
    """Regions may be pooled from the first maps only; anchors stand on all.

    Raises:
        ValueError: names all sizes.
    """
    wanted = [(side // stride, side // stride) for stride in strides]
    found = list(sizes if path.endswith("prior_generator") else sizes[: len(strides)])
    if found != wanted:
        raise ValueError(
            f"{path} has strides {list(strides)}, so it needs maps of {wanted} for an image of {side} x {side} pixels, "
            f"but gets {found}. Next step: see patch_size and strides of model.neck, model.neck.num_outs, and "
            "model.backbone.out_indices; or set the strides of anchors and regions to those of the maps"
        )
