"""Tokens and attention of frozen ViTs other than plain ones with a class token: DINOv3, EVA-02, BEiT, SigLIP, ….

Their blocks run as in ``TimmViT``, for images of any size.

Legend: B images, N = h * w patches, P prefix tokens (class, registers), D embedding, H heads.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mst_transfer.checkpoint.pos_embed import add_pos_embed
from mst_transfer.models.backbones.vit_create import create_vit
from mst_transfer.models.backbones.vit_pass import ViTPass


def is_plain(vit: Any) -> bool:
    """Whether a ViT is timm's ``VisionTransformer`` of its plain blocks, with a class token."""
    plain = isinstance(vit, VisionTransformer) and type(vit.blocks[-1]) is Block
    return plain and type(vit.blocks[-1].attn) is Attention and vit.cls_token is not None


def create_other_vit(arch: str, **options: Any) -> Any:
    """Builds one without classifier and pooling, for images of any size; errors are those of ``create_vit``."""
    vit = create_vit(arch, **options)
    vit.prune_intermediate_layers([len(vit.blocks) - 1], prune_norm=False, prune_head=True)
    return vit


def last_blocks(vit: Any, images: Tensor, num_blocks: int) -> list[Tensor]:
    """Normalised images [B, 3, H, W] → tokens [B, P + N, D] behind the last blocks, earliest first, before the norm."""
    grid = vit.patch_embed.dynamic_feat_size(images.shape[-2:])
    patches = vit.patch_embed(images).reshape(len(images), -1, vit.embed_dim)
    tokens = add_pos_embed(vit, patches, grid, "dino" if "_pos_embed" in vars(vit) else "timm")
    tokens = getattr(vit, "norm_pre", nn.Identity())(tokens)
    forward_pass, kept = ViTPass(vit, grid, len(images), vit.num_prefix_tokens), []
    for index in range(len(vit.blocks)):
        tokens = forward_pass.run(index, tokens)
        if index >= len(vit.blocks) - num_blocks:
            kept.append(tokens)
    return kept


class _LastCall(TorchFunctionMode):
    """Keeps the arguments of the last attention."""

    query: Tensor
    key: Tensor
    mask: Tensor | None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.query, self.key, self.mask = args[0], args[1], (kwargs or {}).get("attn_mask")
        return func(*args, **(kwargs or {}))


def last_attention(vit: Any, images: Tensor) -> Tensor:
    """Attention [B, H, N], float32, over the patches in the last block, of the class token or of all on average."""
    attention: Any = getattr(vit.blocks[-1], "attn", None)
    if hasattr(attention, "fused_attn"):
        attention.fused_attn = True
    with _LastCall() as last:
        last_blocks(vit, images, 1)
    query, key = last.query.float(), last.key.float()
    rows = slice(0, 1) if vit.cls_token is not None else slice(None)
    scores = query[:, :, rows] @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if last.mask is not None:
        scores = scores + last.mask[..., rows, :].float()
    return scores.softmax(dim=-1).mean(dim=2)[..., vit.num_prefix_tokens :]
