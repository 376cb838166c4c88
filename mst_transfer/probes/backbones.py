"""Frozen backbones of any checkpoint: timm's ViTs and Swins, with the normalisation of their training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg, is_model_in_modules
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from mst_transfer.checkpoint import architecture_of, find_backbone, load_backbone
from mst_transfer.checkpoint.metadata import check_known
from mst_transfer.checkpoint.normalisation import Normalisation, normalisation_of
from mst_transfer.checkpoint.pos_embed import use_pos_embed_interpolation
from mst_transfer.checkpoint.recognise import is_head_tensor
from mst_transfer.probes.attention import Backbone, attention_maps
from mst_transfer.probes.features import class_tokens
from mst_transfer.probes.other_vits import create_other_vit, is_plain

RANDOM = "random"  # in place of a path: untrained weights
NEEDED = (
    "a plain Vision Transformer with a class token, e.g. vit_small_patch16_224, or a Swin Transformer, e.g. "
    "swin_tiny_patch4_window7_224"
)


class OtherKindError(ValueError):
    """A ViT that is not a plain one with a class token."""


def create_backbone(arch: str, **options: Any) -> Backbone:
    """Builds timm's ViT with a class token, or Swin, for images of any size, with random weights and no classifier.

    Raises:
        OtherKindError: it is a ViT of another kind.
        ValueError: timm does not know ``arch``, does not take these options for it, or it is neither of the two.
    """
    check_known(arch)
    try:
        get_pretrained_cfg(arch)
    except RuntimeError as error:
        raise ValueError(f"backbone.arch = {arch!r}: {error} Names with a tag: timm.list_pretrained()") from error
    is_swin = is_model_in_modules(arch, {"swin_transformer"})
    if is_model_in_modules(arch, {"eva", "beit"}):
        raise OtherKindError(f"backbone.arch = {arch!r} is a ViT of another kind: choose {NEEDED}")
    if not is_swin and not is_model_in_modules(arch, {"vision_transformer", "deit"}):
        raise ValueError(f"backbone.arch = {arch!r} is neither a ViT nor a Swin Transformer: choose {NEEDED}")
    any_size = dict(strict_img_size=False) if is_swin else dict(dynamic_img_size=True)
    try:
        model = timm.create_model(arch, pretrained=False, num_classes=0, **any_size, **options)
    except TypeError as error:
        raise ValueError(f"backbone: timm's {arch!r} does not take these arguments ({error}); take {NEEDED}") from error
    if not isinstance(model, SwinTransformer):
        _check_class_token(model, arch, options)
        nn.init.trunc_normal_(model.cls_token, std=0.02)  # as DINO does; timm draws it with std 1e-6
    return model


def _check_class_token(vit: Any, arch: str, options: dict[str, Any]) -> None:
    """Refuses a ViT whose class token is none, or is not what its final norm is for."""
    if not is_plain(vit):
        raise OtherKindError(f"backbone.arch = {arch!r} is a {type(vit).__name__} of another kind: choose {NEEDED}")
    if pooled := sorted({name.split(".")[0] for name in vit.state_dict() if is_head_tensor(name)}):
        raise ValueError(
            f"backbone.arch = {arch!r} with {options} has {', '.join(pooled)} behind its tokens, which the class token "
            "does not pass; choose global_pool='token' and no fc_norm"
        )


def create_any(arch: str, **options: Any) -> Backbone:
    """Builds what ``create_backbone`` does, or a ViT of another kind: DINOv3, BEiT, without a class token, ….

    Raises:
        ValueError: as ``create_backbone``, or the ViT is of no kind that ``TimmViT`` takes.
    """
    try:
        return create_backbone(arch, **options)
    except OtherKindError:
        return create_other_vit(arch, **options)


class FrozenBackbone:
    """A backbone in evaluation mode, with the normalisation it was trained with.

    Args:
        img_size: side of the views it was trained with, in pixels.
        dtype: of autocast, or None.
        role: ``teacher`` or ``student`` where its file says so.
    """

    def __init__(
        self,
        model: Backbone,
        normalisation: Normalisation,
        img_size: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        role: str | None = None,
    ) -> None:
        self.role, self.normalisation = role, normalisation
        self.model = model.eval().requires_grad_(False).to(device)
        self.img_size, self.device, self.dtype = img_size, torch.device(device), dtype
        self._mean = torch.tensor(normalisation.mean, device=device).view(3, 1, 1) * 255
        self._std = torch.tensor(normalisation.std, device=device).view(3, 1, 1) * 255

    def normalise(self, views: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] → float32, zero mean and unit variance over the pre-training images."""
        return (views.to(self.device).float() - self._mean) / self._std

    def features(self, num_blocks: int = 1, average_patches: bool = False) -> Callable[[Tensor], Tensor]:
        """A function from uint8 views [B, 3, S, S] to features [B, D * (num_blocks + average_patches)]."""

        def function(views: Tensor) -> Tensor:
            images = self.normalise(views)
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                return class_tokens(self.model, images, num_blocks, average_patches)

        return function

    def attention(self, views: Tensor) -> Tensor:
        """Attention maps [B, heads, h, w] of uint8 views [B, 3, H, W]."""
        return attention_maps(self.model, self.normalise(views))


def load_frozen(
    path: str | Path,
    *,
    role: str | None = "teacher",
    arch: str | None = None,
    arch_kwargs: dict | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
) -> tuple[FrozenBackbone, str]:
    """Loads a checkpoint completely or not at all.

    Args:
        path, role: see ``mst_transfer.checkpoint.read_backbone``; or ``random``: untrained weights of ``arch``,
            the floor that every checkpoint has to clear.
        arch: timm name; None: as ours say, and as the names and shapes of other files show.
        arch_kwargs: its options, likewise.
        device, dtype: of ``FrozenBackbone``.
        mean, std: of the views: see ``mst_transfer.checkpoint.normalisation.normalisation_of``.
        seed: of untrained weights.

    Returns:
        The backbone, and what was loaded and how views are normalised, in words.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file can't be read, is of another architecture or does not cover it, or leaves ``arch`` open.
    """
    if str(path) == RANDOM:
        if arch is None:
            raise ValueError("'random' needs --arch, e.g. --arch vit_small_patch16_224")
        normalisation = normalisation_of(None, arch, mean, std)
        torch.manual_seed(seed)
        model = create_any(arch, **(arch_kwargs or {}))
        frozen = FrozenBackbone(model, normalisation, model.patch_embed.img_size[0], device, dtype)
        return frozen, f"random weights of {arch}, seed {seed}"
    file = find_backbone(path, role)
    metadata = file.metadata
    normalisation, options = normalisation_of(metadata, arch, mean, std), dict[str, Any]()
    if metadata is not None and arch not in (None, metadata.arch):
        raise ValueError(f"{path} is a {metadata.arch}, not a {arch}: leave --arch out")
    if arch is None or metadata is not None:
        try:
            arch, options = architecture_of(file)
        except ValueError as error:
            example = f"mst convert {path} --to mst --arch vit_small_patch16_224 --arch-options KEY=VALUE -o NEW"
            raise ValueError(f"{error}. Next step: {example}, and name NEW") from error
    model = create_any(arch, **options | (arch_kwargs or {}))
    report = load_backbone(model, file)
    use_pos_embed_interpolation(model, report.pos_embed_interpolation)
    size = metadata.img_size[0] if metadata else model.patch_embed.img_size[0]
    frozen = FrozenBackbone(model, normalisation, size, device, dtype, report.role)
    return frozen, f"{report.table()}\n{normalisation.line()}"
