"""Small checkpoints of other projects' ViT codes, with the features that these codes compute from them.

Those in ``sources/*.safetensors`` were written by ``make_vit_sources.py`` from public checkouts: tensors
``checkpoint/…`` (slashes part nested dictionaries), ``viewN/image`` [1, 3, H, W] and ``viewN/tokens`` [1, N, D], the
patch tokens behind the last norm. Those of installed packages are made when asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from golden_files import part, read
from safetensors.torch import load_file
from torch import Tensor, nn

from mst_transfer.checkpoint.pos_embed import use_pos_embed_interpolation

FOLDER = Path(__file__).parent / "sources"
PLAIN = dict(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2)
SHARED_TABLE = dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, use_fc_norm=False, init_values=0.1)  # of BEiT


@dataclass(frozen=True)
class SourceExample:
    """A checkpoint and what it gives."""

    name: str
    source: str  # name of the scheme in mst_transfer.checkpoint.sources.SOURCES that it has to be read by
    content: dict[str, Any]  # of the file: tensors, in nested dictionaries
    arch: str  # of timm, with overrides
    arch_kwargs: dict[str, Any]
    views: list[tuple[Tensor, Tensor]]  # images [1, 3, H, W] and their patch tokens [1, N, D] behind the last norm
    interpolation: str = "timm"  # how the position embeddings are resampled, as the file shows
    option: str = ""  # what the user has to say about it because the file does not show it

    def write(self, folder: Path) -> Path:
        """Writes the checkpoint to a ``.pth`` file."""
        torch.save(self.content, folder / f"{self.name}.pth")
        return folder / f"{self.name}.pth"

    def build(self) -> nn.Module:
        """A model for it, with random weights, for images of any size."""
        options = dict(num_classes=0, dynamic_img_size=True) | self.arch_kwargs
        if self.arch.startswith("beit"):
            options.pop("dynamic_img_size")
        return timm.create_model(self.arch, pretrained=False, **options).eval()

    def largest_difference(self, model: nn.Module, interpolation: str) -> float:
        """Between the patch tokens of a model and those of the example, over all views."""
        vit: Any = model
        if interpolation == "dino":
            use_pos_embed_interpolation(model, "dino")
        with torch.no_grad():
            return max(
                (vit.forward_features(image)[:, -tokens.shape[1] :] - tokens).abs().max().item()
                for image, tokens in self.views
            )


def example(
    name: str,
    source: str,
    content: dict[str, Any],
    views: list[tuple[Tensor, Tensor]],
    arch: str = "vit_tiny_patch16_224",
    interpolation: str = "timm",
    option: str = "",
    **arch_kwargs: Any,
) -> SourceExample:
    """An example of the size of ``PLAIN``."""
    return SourceExample(name, source, content, arch, PLAIN | arch_kwargs, views, interpolation, option)


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Tensors of nested dictionaries under names parted by slashes."""
    flat: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            flat[prefix + name] = value
        else:
            flat |= flatten(value, f"{prefix}{name}/")
    return flat


def nest(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of ``flatten``."""
    content: dict[str, Any] = {}
    for name, tensor in flat.items():
        *outer, last = name.split("/")
        level = content
        for key in outer:
            level = level.setdefault(key, {})
        level[last] = tensor
    return content


def golden_examples() -> Iterator[SourceExample]:
    """Those of public checkouts."""
    for path in sorted(FOLDER.glob("*.safetensors")):
        tensors, metadata = read(path)
        count = sum(name.endswith("/image") and name.startswith("view") for name in tensors)
        yield SourceExample(
            name=path.stem,
            source=metadata["source"],
            content=nest(part(tensors, "checkpoint/")),
            arch=metadata["arch"],
            arch_kwargs=metadata["arch_kwargs"],
            views=[(tensors[f"view{n}/image"], tensors[f"view{n}/tokens"]) for n in range(count)],
            interpolation=metadata["interpolation"],
            option=metadata["option"],
        )


def saved(model: Any) -> dict[str, Tensor]:
    """Tensors of transformers under the names that ``save_pretrained`` writes: those of files on the hub."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors")


def randomise(model: nn.Module, seed: int = 0, scales: tuple[str, ...] = ("lambda", "gamma")) -> nn.Module:
    """Draws everything that is trained, so that features depend on every tensor; scales lie around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                draws = torch.randn(parameter.shape, generator=generator)
                scale = name.endswith("weight") and parameter.ndim == 1 or any(word in name for word in scales)
                parameter.copy_(1 + 0.2 * draws if scale else 0.3 * draws)
    model.eval()  # whose result is None in mmpretrain
    return model


def views(features: Callable[[Tensor], Tensor], *sizes: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
    """Images of the sizes (default: one of 16x16), and their patch tokens behind the last norm."""
    generator = torch.Generator().manual_seed(7)
    pairs = []
    for size in sizes or [(16, 16)]:
        image = torch.randn(1, 3, *size, generator=generator)
        with torch.no_grad():
            pairs.append((image, features(image)))
    return pairs
