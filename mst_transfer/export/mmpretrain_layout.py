"""mmpretrain: the names of its ``VisionTransformer``, and of the Swin Transformer that it, mmdet and mmseg share."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mst_transfer.checkpoint.sources.openmmlab import NAMES
from mst_transfer.checkpoint.sources.scheme import from_timm
from mst_transfer.checkpoint.sources.swin import to_mm
from mst_transfer.export.convert import Target
from mst_transfer.export.source_model import ConversionError, SourceModel
from mst_transfer.export.verify import (
    OUR_READER,
    Agreement,
    compare,
    features,
    plain_bicubic,
    read_back,
    resampling_remark,
    size_in_words,
    two_sizes,
)

PREFIX = "backbone."


def names_of(original: SourceModel) -> dict[str, Tensor]:
    """The tensors under mmpretrain's names, without prefix; a ValueError if its classes cannot compute the same."""
    if original.is_swin():
        return to_mm(original.tensors, "mmdet's SwinTransformer")
    if not original.is_vit():
        raise ConversionError(f"{original.path}: mmpretrain's layout is written for ViT and Swin only")
    if "cls_token" not in original.tensors or "reg_token" in original.tensors:
        raise ConversionError("mmpretrain's VisionTransformer has one class token and no register tokens")
    positions, (rows, columns) = original.tensors.get("pos_embed"), original.metadata.grid_size
    if positions is None or positions.shape[1] != rows * columns + 1:
        raise ConversionError("mmpretrain's VisionTransformer has position embeddings, the class token's first")
    original.require_plain_mlp("mmpretrain's VisionTransformer")
    return from_timm(original.tensors, NAMES, "mmpretrain's VisionTransformer")


def write(original: SourceModel, path: Path) -> None:
    """Writes what mmengine's ``init_cfg=dict(type="Pretrained", prefix="backbone.")`` takes."""
    tensors = {PREFIX + name: tensor.contiguous() for name, tensor in names_of(original).items()}
    torch.save({"meta": original.metadata.to_strings(), "state_dict": tensors}, path)


def verify(original: SourceModel, path: Path) -> Agreement:
    """Loads the file with our reader (ViT), or with mmdet (Swin)."""
    loaded = read_back(original, path)
    if original.is_swin():
        return _verify_swin(original, torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    return compare(
        OUR_READER,
        two_sizes(original),
        lambda size: original.model(size, plain_bicubic),
        lambda size, image: features(loaded.model(size, plain_bicubic), image),
        resampling_remark(original, plain_bicubic, "mmpretrain"),
    )


def _verify_swin(original: SourceModel, state: dict[str, Tensor]) -> Agreement:
    from mmdet.models.backbones import SwinTransformer

    model: Any = SwinTransformer(**swin_arguments(original))
    tensors = {name.removeprefix(PREFIX): tensor.float() for name, tensor in state.items()}
    result = model.load_state_dict(tensors, strict=False)
    missing = [key for key in result.missing_keys if "relative_position_index" not in key]
    if missing or result.unexpected_keys:
        raise ConversionError(f"mmdet's Swin misses {missing} and has no place for {list(result.unexpected_keys)}")
    model.eval()

    @torch.no_grad()
    def found(_: tuple[int, int], image: Tensor) -> Tensor:
        return model(image)[-1].permute(0, 2, 3, 1)

    native, other = two_sizes(original)
    remark = (
        f"compared at sizes of whole windows, more than one in the last stage. Where it has one, as at "
        f"{size_in_words(native)}, mmdet and mmseg shift and mask it all the same, the published model does not; where "
        "windows are not filled, timm pads after the shift, mmdet before it"
    )
    return compare("mmdet's SwinTransformer", (other, (other[0], other[0])), original.model, found, (remark,))


def vit_arguments(original: SourceModel) -> dict[str, Any]:
    """What mmpretrain's ``VisionTransformer`` has to be built with."""
    vit, metadata = original.skeleton, original.metadata
    block = vit.blocks[0]
    options: dict[str, Any] = dict(
        arch=dict(
            embed_dims=vit.embed_dim,
            num_layers=len(vit.blocks),
            num_heads=block.attn.num_heads,
            feedforward_channels=block.mlp.fc1.out_features,
        ),
        img_size=metadata.img_size,
        patch_size=metadata.patch_size,
        norm_cfg=dict(type="LN", eps=block.norm1.eps),
    )
    if block.attn.qkv.bias is None:
        options["qkv_bias"] = False
    if "blocks.0.ls1.gamma" in original.tensors:
        options["layer_scale_init_value"] = 1e-5
    if "norm_pre.weight" in original.tensors:
        options["pre_norm"] = True
    return options


def swin_arguments(original: SourceModel) -> dict[str, Any]:
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


def usage(original: SourceModel, path: Path) -> str:
    """Config lines that use the file."""
    if original.is_swin():
        kind, options = "SwinTransformer", swin_arguments(original)
        options["out_indices"] = tuple(range(len(options["depths"])))
    else:
        kind, options = "mmpretrain.VisionTransformer", vit_arguments(original)
    words = ", ".join(f"{name}={value!r}" for name, value in options.items())
    init = f'init_cfg=dict(type="Pretrained", checkpoint="{path}", prefix="{PREFIX}")'
    colours = {name: [round(255 * value, 3) for value in getattr(original.metadata, name)] for name in ("mean", "std")}
    normalised = f"data_preprocessor=dict(mean={colours['mean']}, std={colours['std']}), of RGB"
    return f'backbone=dict(type="{kind}", {words}, {init}); {normalised}'


TARGET = Target("mmpretrain", (".pth",), write, verify, usage)
