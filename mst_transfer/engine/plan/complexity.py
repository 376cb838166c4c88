"""Parameters and multiply-adds of a detector or segmentor, counted on the meta device without data or weights.

A multiply-add counts once, which is what papers and the MM libraries call a FLOP; matrix products, convolutions and
attention are counted (twice, by ``torch.utils.flop_counter``, which this module halves), element-wise work is not.
One image is counted. A detector's second stage is counted as the MM libraries do: 1,000 proposals for the boxes, 100
for the masks, in every stage of a cascade. Auxiliary heads train only: they have parameters here and no multiply-adds.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mst_transfer.engine.plan.meta_model import build_meta_model

DETECTOR_SHAPE = (800, 1280)  # pixels; what the tables of the detection literature use
NUM_BOX_PROPOSALS = 1000
NUM_MASK_PROPOSALS = 100


class Complexity(NamedTuple):
    """A model's size: parameters, and multiply-adds by part, for an image of ``shape`` (height, width) in pixels."""

    shape: tuple[int, int]
    parameters: int
    macs: dict[str, int]


def measure(cfg: Any, shape: tuple[int, int] | None = None) -> Complexity:
    """Counts the model of a detector's or segmentor's config.

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
        macs = dict(_parts(model, image))
    return Complexity((height, width), sum(parameter.numel() for parameter in model.parameters()), macs)


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


def count_macs(module: Any, *inputs: Any) -> tuple[Any, int]:
    """What a module returns, and its multiply-adds."""
    with FlopCounterMode(display=False) as counter:
        result = module(*inputs)
    return result, counter.get_total_flops() // 2


def _parts(model: Any, image: Tensor) -> Iterator[tuple[str, int]]:
    if not hasattr(model, "backbone"):
        raise ValueError(f"{type(model).__name__} has no backbone: only detectors and segmentors with one are counted")
    maps, macs = count_macs(model.backbone, image)
    yield "backbone", macs
    if model.with_neck:
        maps, macs = count_macs(model.neck, maps)
        yield "neck", macs
    if hasattr(model, "decode_head"):
        if isinstance(model.decode_head, nn.ModuleList):
            raise ValueError(f"{type(model).__name__} decodes in several stages; only one stage is counted")
        yield "decode_head", count_macs(model.decode_head, maps)[1]
    elif hasattr(model, "roi_head"):
        yield from _two_stage_heads(model, maps)
    elif hasattr(model, "bbox_head"):
        yield "bbox_head", count_macs(model.bbox_head, maps)[1]
    else:
        raise ValueError(
            f"{type(model).__name__} has none of decode_head, roi_head, bbox_head: its heads cannot be counted"
        )


def _two_stage_heads(model: Any, maps: Sequence[Tensor]) -> Iterator[tuple[str, int]]:
    if model.with_rpn:
        yield "rpn_head", count_macs(model.rpn_head, maps)[1]
    head = model.roi_head
    yield "bbox_head", _on_regions(head.bbox_head, head.bbox_roi_extractor, NUM_BOX_PROPOSALS)
    if head.with_mask:
        extractor = head.bbox_roi_extractor if head.share_roi_extractor else head.mask_roi_extractor
        yield "mask_head", _on_regions(head.mask_head, extractor, NUM_MASK_PROPOSALS)


def _on_regions(heads: Any, extractors: Any, num: int) -> int:
    """Of a head, or one a stage, on ``num`` regions as its extractor pools them: [num, C, h, w]."""
    pairs = zip(heads, extractors, strict=True) if isinstance(heads, nn.ModuleList) else [(heads, extractors)]
    total = 0
    for head, extractor in pairs:
        size = extractor.roi_layers[0].output_size
        total += count_macs(head, torch.empty(num, extractor.out_channels, *size, device="meta"))[1]
    return total
