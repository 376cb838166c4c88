"""Features of an image, and of a whole data set on one process or many."""

from collections.abc import Callable

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.probes.attention import Backbone, before_last_block, class_token_block, token_grid
from mst_transfer.probes.labelled_images import LabelledImages, load
from mst_transfer.probes.other_vits import is_plain, last_blocks
from mst_transfer.runs.progress import Progress

FeatureFunction = Callable[[Tensor], Tensor]


def num_feature_blocks(backbone: Backbone) -> int:
    """The largest ``num_blocks`` of ``class_tokens``."""
    return 1 if isinstance(backbone, SwinTransformer) else len(backbone.blocks)


def check_features(backbone: Backbone, num_blocks: int, average_patches: bool) -> None:
    """Raises a ValueError for what ``class_tokens`` cannot compute."""
    most = num_feature_blocks(backbone)
    if not 1 <= num_blocks <= most:
        raise ValueError(f"blocks = {num_blocks} must lie in 1 … {most}, the number of blocks with such a feature")
    if average_patches and (isinstance(backbone, SwinTransformer) or backbone.cls_token is None):
        raise ValueError("average-patches: without a class token the feature is that average already; leave it out")


def class_tokens(backbone: Backbone, images: Tensor, num_blocks: int = 1, average_patches: bool = False) -> Tensor:
    """Computes the features of DINO's linear protocol: class tokens of the last blocks, each after the final norm.

    Args:
        backbone: timm's ViT; without a class token the average of the patch tokens takes its place. Or timm's Swin,
            whose one feature is the average of the normalised last-stage tokens.
        images: [B, 3, H, W], normalised.
        num_blocks: n, how many of the last blocks; 4 for ViT-S and 1 for ViT-B in DINO. Of a Swin 1: the stages before
            the last differ in width.
        average_patches: also the mean of the last block's patch tokens after the norm (DINO's ViT-B).

    Returns:
        [B, D * (n + average_patches)]: n class tokens, earliest block first. With ``average_patches`` and
        n = 1 the two vectors alternate channel by channel (class 0, mean 0, class 1, mean 1, …), the order of
        DINO's published linear weights; with n > 1, which DINO's evaluation cannot do, the mean comes last.

    Raises:
        ValueError: see ``check_features``.
    """
    check_features(backbone, num_blocks, average_patches)
    if isinstance(backbone, SwinTransformer):
        return backbone.forward_features(images).mean(dim=(1, 2))
    if is_plain(backbone):
        x, kept = before_last_block(backbone, images, num_kept=num_blocks - 1)
        last = backbone.blocks[-1]
        x = backbone.norm(last(x) if average_patches else class_token_block(last, x)[0])  # [B, T or 1, D]
    else:
        *kept, x = last_blocks(backbone, images, num_blocks)
        x = backbone.norm(x)
    if backbone.cls_token is None:
        patches = [tokens[:, backbone.num_prefix_tokens :] for tokens in (*(backbone.norm(one) for one in kept), x)]
        return torch.cat([tokens.mean(dim=1) for tokens in patches], dim=-1)
    features = torch.cat([*(backbone.norm(tokens[:, 0]) for tokens in kept), x[:, 0]], dim=-1)  # [B, n * D]
    if not average_patches:
        return features
    mean = x[:, backbone.num_prefix_tokens :].mean(dim=1)  # [B, D]
    if num_blocks == 1:
        return torch.stack([features, mean], dim=-1).flatten(1)
    return torch.cat([features, mean], dim=-1)


def patch_tokens(backbone: Backbone, images: Tensor, num_blocks: int = 1) -> Tensor:
    """Computes the patch tokens of the last blocks, each after the final norm, without class token and registers.

    Normalised images [B, 3, H, W] → [B, h, w, D * num_blocks], earliest block first; of a Swin the last stage's map.
    Errors are those of ``check_features`` and ``token_grid``.
    """
    check_features(backbone, num_blocks, average_patches=False)
    grid = token_grid(backbone, *images.shape[-2:])
    if isinstance(backbone, SwinTransformer):
        return backbone.forward_features(images)
    if is_plain(backbone):
        x, kept = before_last_block(backbone, images, num_kept=num_blocks - 1)
        blocks = [*kept, backbone.blocks[-1](x)]
    else:
        blocks = last_blocks(backbone, images, num_blocks)
    tokens = [backbone.norm(block)[:, backbone.num_prefix_tokens :] for block in blocks]
    return torch.cat(tokens, dim=-1).unflatten(1, grid)


@torch.no_grad()
def batch_features(function: FeatureFunction, views: Tensor, device: torch.device | str) -> Tensor:
    """float32 features [B, D] of uint8 views [B, 3, S, S], computed and left on a device."""
    with quick_products(device):
        return function(views.to(device, non_blocking=True)).float()


def extract_features(
    function: FeatureFunction,
    dataset: LabelledImages,
    *,
    batch_size: int = 256,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    title: str = "images",
) -> tuple[Tensor, Tensor]:
    """Features float32 [n, D] and labels int64 [n] of every image, in order, on the CPU, the same on every process.

    ``function`` takes uint8 views [B, 3, S, S] on ``device`` to [B, D]. Each process takes every so-manieth image, in
    batches of its own; nothing is padded, so nothing counts twice. ``title`` is of the progress line.
    """
    world, progress = get_world_size(), Progress(title, len(dataset))
    mine, parts, done = dataset.select(range(get_rank(), len(dataset), world)), [], 0
    pinned = torch.device(device).type == "cuda"
    for views, _, _ in load(mine, num_workers, batch_size=batch_size, pin_memory=pinned):
        parts.append(batch_features(function, views, device).cpu())
        done += len(views) * world
        progress(done)
    shards = all_gather_object(torch.cat(parts) if parts else None)
    rows = torch.empty(len(dataset), next(part.shape[1] for part in shards if part is not None))
    for rank, part in enumerate(shards):
        if part is not None:
            rows[rank::world] = part
    return rows, torch.tensor(dataset.labels)
