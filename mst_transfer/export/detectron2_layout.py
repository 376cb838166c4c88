"""detectron2: the ViT of ViTDet (``projects/ViTDet``), for ``DetectionCheckpointer``.

That network has no class token, no register tokens and no last norm: position embeddings are stored with the class
token's, which it cuts off, and class token and norm are stored so that nothing is lost; detectron2 reports that it does
not use them.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mst_transfer.export.convert import Target
from mst_transfer.export.source_model import ConversionError, SourceModel
from mst_transfer.export.verify import (
    OUR_READER,
    Agreement,
    compare,
    features,
    plain_bicubic,
    read_back,
    two_sizes,
)

PREFIX = "backbone.net."  # the ViT inside SimpleFeaturePyramid


def names_of(original: SourceModel) -> dict[str, Tensor]:
    """The tensors under detectron2's names; a ConversionError if its ViT cannot compute the same."""
    if not original.is_vit():
        raise ConversionError(f"{original.path}: detectron2's layout is written for ViTs only")
    strangers = [n for n in original.tensors if ".ls" in n or "_norm." in n or n.startswith(("reg_token", "norm_pre"))]
    rows, columns = original.metadata.grid_size
    if strangers or "cls_token" not in original.tensors or "pos_embed" not in original.tensors:
        what = f"no place for {strangers[0]}" if strangers else "position embeddings that include a class token's"
        raise ConversionError(
            f"detectron2's ViT has {what}; LayerScale, register tokens and norms of queries are not supported there"
        )
    if original.tensors["pos_embed"].shape[1] != rows * columns + 1 or rows != columns:
        raise ConversionError("detectron2's ViT takes square position embeddings with a class token's before them")
    original.require_plain_mlp("detectron2's ViT")
    return {PREFIX + name: tensor for name, tensor in original.tensors.items()}


def write(original: SourceModel, path: Path) -> None:
    """Writes ``{"model": {"backbone.net.…": …}}``."""
    tensors = {name: tensor.contiguous() for name, tensor in names_of(original).items()}
    torch.save({"model": tensors, "meta": original.metadata.to_strings()}, path)


def without_class_token(original: SourceModel, size: tuple[int, int]) -> Any:
    """timm's model that computes what detectron2's does: no class token, no last norm."""
    kept = {n: t for n, t in original.tensors.items() if n != "cls_token" and not n.startswith("norm.")}
    kept["pos_embed"] = kept["pos_embed"][:, 1:]
    bare = SourceModel(original.path, kept, original.metadata)
    return bare.model(size, plain_bicubic, class_token=False, global_pool="", final_norm=False)


def verify(original: SourceModel, path: Path) -> Agreement:
    """Loads the file with our reader, whose features are those of detectron2's ViT (``tests/golden``)."""
    loaded = read_back(original, path)
    remark = (
        f"{PREFIX}cls_token and {PREFIX}norm are stored for other readers; detectron2 says that it does not use them"
    )

    def found(size: tuple[int, int], image: Tensor) -> Tensor:
        return features(without_class_token(loaded, size), image)

    return compare(OUR_READER, two_sizes(original), partial(without_class_token, original), found, (remark,))


def usage(original: SourceModel, path: Path) -> str:
    """Lazy config lines that use the file."""
    vit, metadata = original.skeleton, original.metadata
    block = vit.blocks[0]
    options = dict(
        pretrain_img_size=metadata.img_size[0],
        pretrain_use_cls_token=True,
        patch_size=metadata.patch_size,
        embed_dim=vit.embed_dim,
        depth=len(vit.blocks),
        num_heads=block.attn.num_heads,
        mlp_ratio=block.mlp.fc1.out_features / vit.embed_dim,
        qkv_bias=block.attn.qkv.bias is not None,
    )
    lines = [f'train.init_checkpoint = "{path}"', *(f"model.backbone.net.{name} = {options[name]}" for name in options)]
    for name, values in (("pixel_mean", metadata.mean), ("pixel_std", metadata.std)):
        lines.append(f"model.{name} = {[round(255 * value, 3) for value in values]}")
    return "; ".join([*lines, 'model.input_format = "RGB"'])


TARGET = Target("detectron2", (".pth",), write, verify, usage)
