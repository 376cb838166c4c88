"""Naming schemes of Swin Transformers (version 1).

They differ in three things besides names. Patch merging stands at the *end* of a stage in the official code and all
that follows it, at the *start* of the next one in timm since 0.9. Its input is ordered by position, then channel in the
official code, by channel, then position where it is made by ``nn.Unfold`` (mmdet, mmseg, mmpretrain). Hugging Face
splits the projection to queries, keys and values in three.

What follows from the window's size is never taken over: ``relative_position_index``, ``attn_mask``.

Shapes: C channels of a map that is merged; a merged patch has 4 C, from (row, column) (0, 0), (1, 0), (0, 1), (1, 1).
"""

import re
from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneRefusedError
from mst_transfer.checkpoint.sources.scheme import Source, from_timm, merge_qkv, rename_all, rules_of

_DERIVED = ("attn_mask", "relative_position_index", "relative_coords_table")
_STAGE = re.compile(r"^layers\.(\d+)\.")
_MERGING = re.compile(r"^layers\.(\d+)\.downsample\.")
_OUT_NORM = re.compile(r"^norm(\d+)\.")

_MM_NAMES = (
    ("patch_embed.projection.*", "patch_embed.proj.*"),
    ("patch_embed.norm.*", "patch_embed.norm.*"),
    ("stages.#.blocks.#.norm1.*", "layers.#.blocks.#.norm1.*"),
    ("stages.#.blocks.#.norm2.*", "layers.#.blocks.#.norm2.*"),
    ("stages.#.blocks.#.attn.w_msa.*", "layers.#.blocks.#.attn.*"),
    ("stages.#.blocks.#.ffn.layers.0.0.*", "layers.#.blocks.#.mlp.fc1.*"),
    ("stages.#.blocks.#.ffn.layers.1.*", "layers.#.blocks.#.mlp.fc2.*"),
    ("stages.#.downsample.*", "layers.#.downsample.*"),
    ("norm#.*", "norm#.*"),
)
_HF_NAMES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.position_embeddings$", "absolute_pos_embed"),
    (r"^encoder\.layers\.", "layers."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.relative_position_bias\.", ".attn."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attn\.([qkv])(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
    *((rf"^hidden_states_norms\.stage{stage + 1}\.", f"norm{stage}.") for stage in range(4)),
)


def from_official(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of Swin's authors, of MoBY, SimMIM and timm, old and new.

    Raises:
        BackboneRefusedError: if the Swin has an absolute position embedding.
    """
    if "absolute_pos_embed" in tensors:
        raise BackboneRefusedError(
            "this Swin adds an absolute position embedding (ape=True), for which timm's SwinTransformer has no place; "
            "its features would differ without it. Choose a checkpoint trained with ape=False, as published ones are"
        )
    kept = {name: t for name, t in tensors.items() if name.rsplit(".", 1)[-1] not in _DERIVED}
    return _name_last_norm(_merge_at_start(kept))


def from_mm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of mmdet, mmseg and mmpretrain, whose patch merging is ordered by channel, then position."""
    renamed = rename_all(tensors, rules_of(_MM_NAMES))
    return from_official({n: position_first(t) if _MERGING.match(n) else t for n, t in renamed.items()})


def to_mm(tensors: Mapping[str, Tensor], library: str) -> dict[str, Tensor]:
    """Gives a timm Swin the names and the patch merging of these libraries, where the last norm is the last stage's.

    Raises:
        BackboneRefusedError: they have no place for one of the tensors.
    """
    last = max(int(match[1]) for match in map(_STAGE.match, tensors) if match)
    placed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := _MERGING.match(name):
            placed[f"layers.{int(match[1]) - 1}.{name[match.end() - len('downsample.') :]}"] = channel_first(tensor)
        else:
            placed[re.sub(r"^norm\.", f"norm{last}.", name)] = tensor
    return from_timm(placed, _MM_NAMES, library)


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of ``transformers``, up to release 4 and from release 5 on."""
    return from_official(merge_qkv(rename_all(tensors, _HF_NAMES)))


def _refuse(tensors: Mapping[str, Tensor]) -> NoReturn:
    raise BackboneRefusedError(
        "only the first version of the Swin Transformer is supported. Choose a checkpoint of it, such as "
        "swin_tiny_patch4_window7_224"
    )


def position_first(merging: Tensor) -> Tensor:
    """The input of a patch merging from (C, row, column) to (column, row, C); weight [2 C, 4 C] or norm [4 C]."""
    split = merging.unflatten(-1, (-1, 2, 2))
    return split.movedim((-1, -2, -3), (-3, -2, -1)).flatten(-3).contiguous()


def channel_first(merging: Tensor) -> Tensor:
    """The input of a patch merging from (column, row, C) to (C, row, column); undoes ``position_first``."""
    split = merging.unflatten(-1, (2, 2, -1))
    return split.movedim((-1, -2, -3), (-3, -2, -1)).flatten(-3).contiguous()


def _merge_at_start(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Moves patch merging from the end of a stage to the start of the next, if it is there.

    The first stage of timm's arrangement has none, that of the official one always has.
    """
    if not any(name.startswith("layers.0.downsample.") for name in tensors):
        return dict(tensors)
    return {
        _MERGING.sub(lambda match: f"layers.{int(match[1]) + 1}.downsample.", name): tensor
        for name, tensor in tensors.items()
    }


def _name_last_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The norm of the last stage's output, which detectors number like those of the other stages, is ``norm``."""
    last = max((int(match[1]) for match in map(_STAGE.match, tensors) if match), default=-1)
    if "norm.weight" in tensors:
        return dict(tensors)
    return {
        _OUT_NORM.sub(lambda match: "norm." if int(match[1]) == last else match[0], name): tensor
        for name, tensor in tensors.items()
    }


_TABLE = "relative_position_bias_table"
SWIN_SOURCES = (
    Source("timm Swin, Swin, MoBY, SimMIM, MST", f"layers.0.blocks.0.attn.{_TABLE}", from_official),
    Source("mmdet, mmseg, mmpretrain Swin", f"stages.0.blocks.0.attn.w_msa.{_TABLE}", from_mm),
    Source("transformers Swin", f"encoder.layers.0.blocks.0.attention.self.{_TABLE}", from_hugging_face),
    Source(
        "transformers 5 Swin", f"encoder.layers.0.blocks.0.attention.relative_position_bias.{_TABLE}", from_hugging_face
    ),
    Source("timm, Swin V2", "layers.0.blocks.0.attn.logit_scale", _refuse),
    Source("mmpretrain, Swin V2", "stages.0.blocks.0.attn.w_msa.logit_scale", _refuse),
    Source("transformers, Swin V2", "encoder.layers.0.blocks.0.attention.self.logit_scale", _refuse),
    Source("Swin-MLP", "layers.0.blocks.0.spatial_mlp.weight", _refuse),
)
