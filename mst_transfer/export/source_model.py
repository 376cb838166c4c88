"""The model that is converted: timm's, holding exactly the tensors of a file, and what is known of it.

Shapes: image [B, 3, H, W]; N tokens (prefix + patches), D embedding width; Swin's map [B, h, w, C].
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import GELU, Mlp
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mst_transfer.checkpoint import BackboneFile, BackboneMetadata, architecture_of, find_backbone, load_backbone
from mst_transfer.checkpoint.metadata import check_known
from mst_transfer.checkpoint.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalisation_of
from mst_transfer.checkpoint.pos_embed import resample_pos_embed
from mst_transfer.files.checksums import sha256_of

# (pos_embed [1, P + N, D], new grid, old grid, P) -> pos_embed on the new grid
Resample = Callable[[Tensor, tuple[int, int], tuple[int, int], int], Tensor]


class ConversionError(ValueError):
    """A backbone cannot be written for a target, or what was written does not compute the same."""


@dataclass(frozen=True)
class SourceModel:
    """A backbone and what is known of it."""

    path: Path
    tensors: dict[str, Tensor]  # the backbone's under timm's names, as stored; no head
    metadata: BackboneMetadata  # the file's, or for a foreign file what was inferred, given and assumed
    remarks: tuple[str, ...] = ()  # what was assumed, in words

    def model(
        self, img_size: tuple[int, int] | None = None, resample: Resample | None = None, **options: Any
    ) -> nn.Module:
        """The timm model, in float32 and evaluation mode.

        Args:
            img_size: height and width in pixels to build it for; None: the checkpoint's own.
            resample: how position embeddings get to that size; None: as the checkpoint's metadata say.
            **options: further overrides for ``timm.create_model``.
        """
        model: Any = _create(self.metadata, **options)
        model.load_state_dict({name: self.tensors[name].float() for name in model.state_dict()})
        if img_size is not None and img_size != self.metadata.img_size:
            self.resize(model, img_size)
            if "pos_embed" in self.tensors:
                way = resample or partial(resample_pos_embed, interpolation=self.metadata.pos_embed_interpolation)
                num_prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
                grids = model.patch_embed.grid_size, self.metadata.grid_size
                model.pos_embed.data.copy_(way(self.tensors["pos_embed"].float(), *grids, num_prefix))
        return model.eval()

    def resize(self, model: Any, img_size: tuple[int, int]) -> None:
        """Readies a timm model for images of another size, by timm's own means; a Swin keeps its windows."""
        if hasattr(model, "set_input_size"):
            windows = {"window_size": self.window_size()} if isinstance(model, SwinTransformer) else {}
            model.set_input_size(img_size=img_size, **windows)

    def rounded(self, dtype: str | None) -> "SourceModel":
        """The same backbone in another precision, None: its own; a ConversionError if a value overflows."""
        if dtype is None:
            return self
        tensors = _in_precision(self.tensors, getattr(torch, dtype))
        lost = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        if lost:
            raise ConversionError(
                f"{self.path}: {lost[0]} has values that {dtype} cannot hold; use bfloat16 or float32"
            )
        return replace(self, tensors=tensors)

    @cached_property
    def skeleton(self) -> Any:
        """The timm model without memory for its tensors, to ask for its options."""
        return _create(self.metadata, device="meta")

    def is_vit(self) -> bool:
        """Whether it is timm's plain ``VisionTransformer``."""
        return isinstance(self.skeleton, VisionTransformer)

    def is_swin(self) -> bool:
        """Whether it is a Swin Transformer of the first version."""
        return isinstance(self.skeleton, SwinTransformer)

    def window_size(self) -> int:
        """Side of a Swin's attention windows, in tokens."""
        rows = self.tensors["layers.0.blocks.0.attn.relative_position_bias_table"].shape[0]
        return (math.isqrt(rows) + 1) // 2

    def require_plain_mlp(self, layout: str) -> None:
        """Refuses a ViT whose MLP is not two layers with an exact GELU between them, which names hardly show."""
        mlp = self.skeleton.blocks[0].mlp
        exact = type(mlp.act) in (nn.GELU, GELU) and getattr(mlp.act, "approximate", "none") == "none"
        if type(mlp) is not Mlp or not exact:
            raise ConversionError(
                f"{layout} has an MLP with GELU; this backbone has {type(mlp).__name__} with {type(mlp.act).__name__}. "
                "Choose another target"
            )


def read_source_model(
    path: str | Path,
    *,
    role: str | None = None,
    arch: str | None = None,
    arch_kwargs: Mapping[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> SourceModel:
    """Reads a file of any layout that ``mst_transfer.checkpoint`` knows, and checks it against its architecture.

    Args:
        path, role: see ``mst_transfer.checkpoint.read_backbone``.
        arch: timm model name; None: from the file's metadata, else inferred from its tensors.
        arch_kwargs: overrides for ``timm.create_model``, on top of what the metadata or the tensors say.
        mean, std: of the input: see ``mst_transfer.checkpoint.normalisation.normalisation_of``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no backbone, or not of that architecture, or numbers that are none.
    """
    file = find_backbone(path, role)
    path, remarks = Path(path), list[str]()
    metadata = file.metadata
    if metadata is None or arch is not None or arch_kwargs:
        metadata = _complete(file, path, arch, arch_kwargs, remarks)
    colours = normalisation_of(file.metadata, arch, mean, std)
    if not colours.known:
        remarks.append(colours.line())
    metadata = replace(metadata, mean=colours.mean, std=colours.std)
    model = _create(metadata)
    report = load_backbone(model, file)
    if report.resized:
        changes = ", ".join(f"{name} {how}" for name, how in report.resized.items())
        raise ConversionError(
            f"{path} does not have the sizes of arch={metadata.arch!r} with {metadata.arch_kwargs}: it would be "
            f"resampled ({changes}). Pass the checkpoint's own: --arch-options img_size=[224,320]"
        )
    remarks += [report.remark] if report.remark else []
    tensors = _in_stored_precision(model.state_dict(), file.tensors, remarks)
    return SourceModel(path, tensors, metadata, tuple(remarks))


def _in_stored_precision(
    loaded: Mapping[str, Tensor], stored: Mapping[str, Tensor], remarks: list[str]
) -> dict[str, Tensor]:
    """A model's tensors in the precision of the file, so that nothing grows by being converted."""
    dtypes = {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()}
    if len(dtypes) != 1 or torch.float64 in dtypes:
        remarks.append(f"the file holds {', '.join(sorted(map(str, dtypes)))}; float32 is written")
        return dict(loaded)
    return _in_precision(loaded, dtypes.pop())


def _in_precision(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _complete(
    file: BackboneFile, path: Path, arch: str | None, arch_kwargs: Mapping[str, Any] | None, remarks: list[str]
) -> BackboneMetadata:
    """Metadata of a file that has none, or not the given ones: inferred, given, or assumed and said so."""
    known, options = file.metadata, dict[str, Any]()
    if arch is None:
        arch, options = architecture_of(file)
        remarks += [] if known else [f"arch={arch!r} was inferred from the tensors; --arch says otherwise"]
    options = json.loads(json.dumps(options | dict(arch_kwargs or {})))  # as metadata give it back
    check_known(arch)
    model: Any = create(arch, {**options, "device": "meta"})
    patch = int(model.patch_embed.patch_size[0])
    num_prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
    if "img_size" not in options and "pos_embed" in file.tensors:
        side = math.isqrt(max(file.tensors["pos_embed"].shape[1] - num_prefix, 0)) * patch
        if side and (side, side) != tuple(model.patch_embed.img_size):
            options["img_size"] = side
            model = create(arch, {**options, "device": "meta"})
    name = file.source if "://" in file.source else path.name
    provenance = known.provenance if known else {"converted_from": name, "names": file.scheme}
    if not known and path.is_file():
        provenance["sha256"] = sha256_of(path)
    return BackboneMetadata(
        arch=arch,
        arch_kwargs=options,
        patch_size=patch,
        img_size=tuple(model.patch_embed.img_size),
        embed_dim=int(model.patch_embed.proj.weight.shape[0]),
        mean=known.mean if known else IMAGENET_MEAN,
        std=known.std if known else IMAGENET_STD,
        role=file.role or "teacher",
        pos_embed_interpolation=file.interpolation,
        provenance=provenance,
    )


def _create(metadata: BackboneMetadata, **options: Any) -> nn.Module:
    return create(metadata.arch, {**metadata.arch_kwargs, **options})


def create(arch: str, options: Mapping[str, Any]) -> nn.Module:
    """A timm model without a head; a ConversionError if the architecture does not take the options."""
    try:
        return timm.create_model(arch, pretrained=False, **{"num_classes": 0, **options})
    except (TypeError, RuntimeError) as error:  # RuntimeError: there are no weights of that tag
        raise ConversionError(f"arch={arch!r} does not take all of {sorted(options)}: {error}") from error
