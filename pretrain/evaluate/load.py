"""A frozen backbone from any checkpoint that the transfer side reads."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mst_transfer.checkpoint import load_backbone, read_backbone
from mst_transfer.checkpoint.architecture import infer_architecture
from mst_transfer.checkpoint.normalisation import Normalisation, normalisation_of
from mst_transfer.checkpoint.pos_embed import use_pos_embed_interpolation
from pretrain.backbones import Backbone, build_backbone


class FrozenBackbone:
    """A backbone with the normalisation it was trained with.

    Attributes:
        backbone: in evaluation mode.
        normalisation: of the views, and who says so.
        img_size: side of the views it was trained with, in pixels.
        role: ``teacher`` or ``student`` where its file says so.
    """

    def __init__(
        self,
        backbone: Backbone,
        normalisation: Normalisation,
        img_size: int,
        device: torch.device | str,
        dtype: torch.dtype | None = None,
        role: str | None = None,
    ) -> None:
        self.role, self.normalisation = role, normalisation
        self.backbone = backbone.eval().requires_grad_(False).to(device)
        self.img_size, self.device, self.dtype = img_size, torch.device(device), dtype
        self._mean = torch.tensor(normalisation.mean, device=device).view(3, 1, 1) * 255
        self._std = torch.tensor(normalisation.std, device=device).view(3, 1, 1) * 255

    @classmethod
    def random(
        cls,
        arch: str,
        arch_kwargs: dict,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype | None = None,
        normalisation: Normalisation | None = None,
    ) -> tuple["FrozenBackbone", str]:
        """Untrained weights, the floor that every checkpoint has to clear, and what to say about them."""
        torch.manual_seed(seed)
        backbone = build_backbone(arch, with_mask_token=False, **arch_kwargs)
        size = backbone.vit.patch_embed.img_size[0]
        frozen = cls(backbone, normalisation or normalisation_of(None, None), size, device, dtype)
        return frozen, f"random weights of {arch}, seed {seed}"

    def normalise(self, views: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] → float32, zero mean and unit variance over the pre-training images."""
        return (views.to(self.device).float() - self._mean) / self._std

    def features(self, num_blocks: int = 1, average_patches: bool = False) -> Callable[[Tensor], Tensor]:
        """A function from uint8 views [B, 3, S, S] to features [B, D * (num_blocks + average_patches)]."""

        def function(views: Tensor) -> Tensor:
            images = self.normalise(views)
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                return self.backbone.cls_tokens(images, num_blocks, average_patches)

        return function


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
) -> tuple[FrozenBackbone, str]:
    """Load a checkpoint completely or not at all.

    Args:
        path: ours, DINO's, timm's, …: see :func:`mst_transfer.checkpoint.read_backbone`.
        role: ``teacher`` or ``student``; None: the only one that the file names, else the teacher.
        arch: timm name. None: as ours say, and as the names and shapes of other files show
            (:mod:`mst_transfer.checkpoint.architecture`).
        arch_kwargs: its options, likewise.
        device: where to put it.
        dtype: of autocast, or None.
        mean: RGB mean of the views' normalisation on a scale of 0 to 1; None: as
            :func:`mst_transfer.checkpoint.normalisation.normalisation_of` finds it.
        std: RGB standard deviation, likewise.

    Returns:
        The backbone, and what was loaded and how views are normalised, in words.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file can't be read, is of another architecture or does not cover it, or leaves ``arch`` open.
    """
    tensors, metadata = read_backbone(path, role)
    normalisation = normalisation_of(metadata, arch, mean, std)
    if metadata is None:
        options = dict(arch_kwargs or {})
        if arch is None:
            arch, shown = _show_architecture(tensors, path)
            options = shown | options
    else:
        if arch not in (None, metadata.arch):
            raise ValueError(f"{path} is a {metadata.arch}, not a {arch}: leave --arch out")
        arch = metadata.arch
        options = {**metadata.arch_kwargs, **(arch_kwargs or {})}
    backbone = build_backbone(arch, with_mask_token=False, **options)
    report = load_backbone(backbone.vit, path, role=role)
    if report.pos_embed_interpolation == "dino":
        use_pos_embed_interpolation(backbone.vit, "dino")
    size = metadata.img_size[0] if metadata else backbone.vit.patch_embed.img_size[0]
    frozen = FrozenBackbone(backbone, normalisation, size, device, dtype, report.role)
    return frozen, f"{report.table()}\n{normalisation.line()}"


def _show_architecture(tensors: dict[str, Tensor], path: str | Path) -> tuple[str, dict]:
    try:
        return infer_architecture(tensors, str(path))
    except ValueError as error:
        raise ValueError(
            f"{error} (on the command line: --arch vit_small_patch16_224 --arch-options KEY=VALUE)"
        ) from error
