"""The Swin Transformer of mmdet, mmseg and mmpretrain, which share its names.

Their patch merging unfolds each 2x2 cell channel by channel, row by row; the published one stacks the four positions
column by column, each with all its channels. Weights are reordered between the two.

Shapes: C channels before merging; O after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mst_transfer.export.errors import ConversionError
from mst_transfer.export.names import Table, rename
from mst_transfer.export.original import Original
from mst_transfer.export.verify import (
    Agreement,
    compare_at,
    features,
    image_of,
    largest_difference,
    size_in_words,
    two_sizes,
)

_BLOCK, _STAGE = r"layers\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.blocks.\2."
NAMES: Table = (
    (r"patch_embed\.proj\.(.+)", r"patch_embed.projection.\1"),
    (r"patch_embed\.norm\.(.+)", r"patch_embed.norm.\1"),
    (_BLOCK + r"norm([12])\.(.+)", _STAGE + r"norm\3.\4"),
    (_BLOCK + r"attn\.(.+)", _STAGE + r"attn.w_msa.\3"),
    (_BLOCK + r"mlp\.fc1\.(.+)", _STAGE + r"ffn.layers.0.0.\3"),
    (_BLOCK + r"mlp\.fc2\.(.+)", _STAGE + r"ffn.layers.1.\3"),
    (r"stages\.(.+)", r"stages.\1"),  # patch merging, renamed before
    (r"norm(\d+)\.(.+)", r"norm\1.\2"),
)


def unfold_order(tensor: Tensor) -> Tensor:
    """Reorders the last axis from [4 positions column by column, C] to [C, 4 positions row by row].

    Args:
        tensor: […, 4C].
    """
    by_column = tensor.unflatten(-1, (2, 2, -1))  # […, column, row, C]
    return by_column.movedim(-1, -3).transpose(-1, -2).flatten(-3)  # […, C, row, column]


def names_of(original: Original) -> dict[str, Tensor]:
    """The tensors under these libraries' names; the published model's last norm is that of the last stage."""
    last = len(original.skeleton.layers) - 1
    prepared: dict[str, Tensor] = {}
    for name, tensor in original.tensors.items():
        parts = name.split(".")
        if "downsample" in parts:  # timm merges before a stage, these after the one before
            prepared[".".join(["stages", str(int(parts[1]) - 1), *parts[2:]])] = unfold_order(tensor)
        elif parts[0] == "norm":
            prepared[f"norm{last}.{parts[1]}"] = tensor
        else:
            prepared[name] = tensor
    return rename(prepared, NAMES, "mmdet's SwinTransformer")


def verify(original: Original, path: Path) -> Agreement:
    """Loads the file with mmdet's ``SwinTransformer``, and with mmpretrain's where that can be imported."""
    from mmdet.models.backbones import SwinTransformer

    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    tensors = {name.removeprefix("backbone."): tensor.float() for name, tensor in state.items()}
    model = SwinTransformer(**arguments(original))
    _load(model, tensors, "mmdet's SwinTransformer")
    native, other = two_sizes(original)
    sizes = (other, (other[0], other[0]))
    differences = compare_at(
        sizes, lambda size, x: features(original.model(size), x), lambda _, x: _last(model, x).permute(0, 2, 3, 1)
    )
    remark = (
        f"compared at sizes of whole windows, more than one in the last stage. Where it has one, as at "
        f"{size_in_words(native)}, mmdet and mmseg shift and mask it all the same, the published model does not; where "
        "windows are not filled, timm pads after the shift, mmdet before it"
    )
    found = _mmpretrain_difference(original, tensors, native)
    by = "mmdet's SwinTransformer"
    if found is not None:
        by, differences = f"{by} and mmpretrain's", {f"{size_in_words(native)} (mmpretrain)": found, **differences}
    return Agreement(by, differences, (remark,))


def _mmpretrain_difference(original: Original, tensors: dict[str, Tensor], size: tuple[int, int]) -> float | None:
    try:
        from mmpretrain.models.backbones import SwinTransformer
    except Exception:  # not installed, or broken by the versions of what it needs: mmdet was asked
        return None
    options = arguments(original)
    arch = {
        name: list(value) if name != "embed_dims" else value
        for name, value in options.items()
        if name in ("embed_dims", "depths", "num_heads")
    }
    model = SwinTransformer(
        arch=arch,
        img_size=size,
        patch_size=options["patch_size"],
        window_size=options["window_size"],
        out_indices=options["out_indices"],
    )
    _load(model, tensors, "mmpretrain's SwinTransformer")
    image = image_of(size)
    found = _last(model, image).permute(0, 2, 3, 1)
    return largest_difference(f"at {size_in_words(size)}", features(original.model(size), image), found)


def _load(model: Any, tensors: dict[str, Tensor], name: str) -> None:
    result = model.load_state_dict(tensors, strict=False)
    missing = [key for key in result.missing_keys if "relative_position_index" not in key]
    if missing or result.unexpected_keys:
        raise ConversionError(f"{name} misses {missing} and has no place for {list(result.unexpected_keys)}")
    model.eval()


@torch.no_grad()
def _last(model: Any, image: Tensor) -> Tensor:
    return model(image)[-1]


def arguments(original: Original) -> dict[str, Any]:
    """What mmdet's ``SwinTransformer`` has to be built with."""
    swin = original.skeleton
    depths = tuple(len(stage.blocks) for stage in swin.layers)
    block = swin.layers[0].blocks[0]
    return dict(
        embed_dims=swin.patch_embed.proj.out_channels,
        patch_size=original.metadata.patch_size,
        window_size=original.window_size(),
        mlp_ratio=block.mlp.fc1.out_features // block.mlp.fc1.in_features,
        depths=depths,
        num_heads=tuple(stage.blocks[0].attn.num_heads for stage in swin.layers),
        strides=(original.metadata.patch_size, *(2,) * (len(depths) - 1)),
        out_indices=(len(depths) - 1,),
    )


def usage(original: Original, init_cfg: str) -> str:
    """Config lines that use the file."""
    options = {**arguments(original), "out_indices": tuple(range(len(arguments(original)["depths"])))}
    words = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f'backbone=dict(type="SwinTransformer", {words}, {init_cfg})'
