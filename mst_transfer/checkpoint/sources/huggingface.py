"""Naming scheme of transformers: ViT, DINOv2, DINOv3, ViTMAE, BEiT, Data2Vec, DeiT, …

Files bear the names of the older releases, models of transformers 5 newer ones (``layers.0.attention.q_proj``); both
are read.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from mst_transfer.checkpoint.sources.scheme import Source, merge_qkv, rename_all
from mst_transfer.checkpoint.sources.timm_like import fold_class_position

# blocks of a Swin, whose patch embedding is the same, differ
_LAYER = re.compile(r"^(encoder\.layer|layers|layer|model\.layer)\.\d+\.(?!blocks\.|downsample\.)")
_RULES = (
    (r"^(?:encoder\.layer|layers|layer|model\.layer)\.(\d+)\.", r"blocks.\1."),
    (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)$", r"patch_embed.proj.\1"),
    (r"^(?:encoder\.relative_position_bias|shared_position_bias)\.", "rel_pos_bias."),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.", r".attn.\1."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"(?:\.attention\.attention)?\.relative_position_bias\.relative", ".attn.relative"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1_x."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.lambda_([12])$", r".gamma_\1"),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)


def _matches(tensors: Mapping[str, Tensor]) -> bool:
    return any(map(_LAYER.match, tensors))


def _rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    rules = list(_RULES)
    if not any(".mlp.gate_proj." in name for name in tensors):  # DINOv3 calls the first layer of a plain MLP so
        rules.insert(0, (r"\.mlp\.up_proj\.", ".mlp.fc1."))
    return fold_class_position(merge_qkv(rename_all(tensors, rules)))


def _interpolation(tensors: Mapping[str, Tensor]) -> str:
    """DINOv2's conversion keeps its mask token [1, D]; without registers DINO's resampling, see its own scheme."""
    mask = tensors.get("embeddings.mask_token")
    plain = "embeddings.register_tokens" not in tensors
    return "dino" if plain and mask is not None and mask.ndim == 2 else "timm"


_BESIDE = ("layernorm.weight", "layernorm.bias")  # BEiT's pre-training model has its final norm outside the encoder
HUGGINGFACE = Source(
    "transformers ViT, DINOv2, MAE, BEiT",
    "embeddings.patch_embeddings.projection.weight",
    _rename,
    _matches,
    beside=_BESIDE,
    interpolation=_interpolation,
)
HUGGINGFACE_DINOV3 = Source("transformers DINOv3", "embeddings.patch_embeddings.weight", _rename, _matches)
