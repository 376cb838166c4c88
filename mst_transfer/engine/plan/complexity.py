"""Parameters and multiply-adds of a detector or segmentor, counted on the meta device without data or weights.

A multiply-add counts once, which is what papers and the MM libraries call a FLOP; matrix products, convolutions and
attention are counted (twice, by ``torch.utils.flop_counter``, which this module halves), element-wise work is not.
One image is counted. A detector's second stage is counted as the MM libraries do: 1,000 proposals for the boxes, 100
for the masks, in every stage of a cascade. Auxiliary heads train only: they have parameters here and no multiply-adds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mst_transfer.engine.plan.meta_model import build_meta_model

DETECTOR_SHAPE = (800, 1280)  # pixels; what the tables of the detection literature use
NUM_BOX_PROPOSALS = 1000
NUM_MASK_PROPOSALS = 100


@dataclass(frozen=True)
class Part:
    """One part of a model: its name, number of parameters, and multiply-adds for one image."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """The parts of a config's model, for images of ``shape`` (height, width) in pixels."""

    config: str
    shape: tuple[int, int]
    parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """All multiply-adds of one image."""
        return sum(part.macs for part in self.parts)

    def sums(self) -> dict[str, Part]:
        """``backbone``, ``neck``, ``heads`` and ``auxiliary``, each the sum of its parts."""
        sums = {name: Part(name, 0, 0) for name in ("backbone", "neck", "heads", "auxiliary")}
        for part in self.parts:
            name = part.name if part.name in sums else "heads"
            sums[name] = Part(name, sums[name].parameters + part.parameters, sums[name].macs + part.macs)
        return sums

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"parameters": self.parameters, "macs": self.macs}


def measure(cfg: Any, name: str, shape: tuple[int, int] | None = None) -> Complexity:
    """Counts the model of a detector's or segmentor's config, which the table calls ``name``.

    Args:
        shape: Height and width of the image in pixels. None: 800 x 1280 for detectors, or the square that theirs are
            padded to; the size of the training crops for segmentors.

    Raises:
        ValueError: The model is neither a segmentor nor a detector of one or two stages, or the shape is not positive.
    """
    if shape is not None and min(shape) < 1:
        raise ValueError(f"--shape {shape[0]} {shape[1]}: height and width must be positive")
    model = build_meta_model(cfg)
    height, width = shape or default_shape(cfg)
    image = torch.empty(1, 3, height, width, device="meta")
    with torch.no_grad():
        parts = tuple(_parts(model, image))
    missing = sum(p.numel() for p in model.parameters()) - sum(part.parameters for part in parts)
    if missing:
        parts += (Part("other", missing, 0),)
    return Complexity(name, (height, width), parts)


def default_shape(cfg: Any) -> tuple[int, int]:
    """Height and width that a config is counted at unless one is asked for."""
    preprocessor = cfg.model.get("data_preprocessor") or {}
    if cfg.default_scope == "mmdet":
        divisor = preprocessor.get("pad_size_divisor", 1)
        return (divisor, divisor) if divisor > min(DETECTOR_SHAPE) else DETECTOR_SHAPE
    size = preprocessor.get("size")
    if size is None:
        raise ValueError(f"{cfg.filename}: model.data_preprocessor has no size. Next step: --shape HEIGHT WIDTH")
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def count_macs(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call returns, and its multiply-adds."""
    with FlopCounterMode(display=False) as counter:
        result = call()
    return result, counter.get_total_flops() // 2


def _parts(model: Any, image: Tensor) -> Iterator[Part]:
    if not hasattr(model, "backbone"):
        raise ValueError(f"{type(model).__name__} has no backbone: only detectors and segmentors with one are counted")
    maps, macs = count_macs(lambda: model.backbone(image))
    yield Part("backbone", _count(model.backbone), macs)
    if model.with_neck:
        maps, macs = count_macs(lambda: model.neck(maps))
        yield Part("neck", _count(model.neck), macs)
    if hasattr(model, "decode_head"):
        yield from _segmentor_heads(model, maps)
    elif hasattr(model, "roi_head"):
        yield from _two_stage_heads(model, maps)
    elif hasattr(model, "bbox_head"):
        yield _applied("bbox_head", model.bbox_head, maps)
    else:
        raise ValueError(
            f"{type(model).__name__} has none of decode_head, roi_head, bbox_head: its heads cannot be counted"
        )


def _applied(name: str, head: nn.Module, maps: Sequence[Tensor]) -> Part:
    return Part(name, _count(head), count_macs(lambda: head(maps))[1])


def _segmentor_heads(model: Any, maps: Sequence[Tensor]) -> Iterator[Part]:
    heads = _each(model.decode_head)
    if len(heads) > 1:
        raise ValueError(f"{type(model).__name__} decodes in {len(heads)} stages; only one stage is counted")
    yield _applied("decode_head", heads[0], maps)
    if getattr(model, "auxiliary_head", None) is not None:
        yield Part("auxiliary", _count(model.auxiliary_head), 0)


def _two_stage_heads(model: Any, maps: Sequence[Tensor]) -> Iterator[Part]:
    if model.with_rpn:
        yield _applied("rpn_head", model.rpn_head, maps)
    head = model.roi_head
    boxes = _each(head.bbox_roi_extractor)
    yield _pooled_part("bbox_head", head.bbox_head, boxes, NUM_BOX_PROPOSALS)
    if head.with_mask:
        extractors = boxes if head.share_roi_extractor else _each(head.mask_roi_extractor)
        yield _pooled_part("mask_head", head.mask_head, extractors, NUM_MASK_PROPOSALS)


def _pooled_part(name: str, heads: nn.Module, extractors: Sequence[Any], num: int) -> Part:
    """A head, or one a stage, on ``num`` regions as its extractor pools them: [num, C, h, w]."""
    total = 0
    for head, extractor in zip(_each(heads), extractors, strict=True):
        size = extractor.roi_layers[0].output_size
        regions = torch.empty(num, extractor.out_channels, *size, device="meta")
        total += count_macs(functools.partial(head, regions))[1]
    return Part(name, _count(heads), total)


def _each(modules: Any) -> list[Any]:
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
