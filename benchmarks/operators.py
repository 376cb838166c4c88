"""NMS and RoIAlign from torchvision against mmcv's compiled ones: identical results, and the time they take.

The peer is the extension module of a compiled mmcv (``mmcv/_ext*.so``), loaded from where it was installed with
``pip install --target FOLDER mmcv``; sizes are those of Mask R-CNN on a 1333x800 image: the finest map of its pyramid,
of stride 4, takes boxes of up to 112 px. torchvision's RoIAlign spreads over threads, mmcv's does not: give --threads.
"""

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.measure import Row, alone, compare, take_turns, wall_clock
from mst_transfer.compat.ops import make_module

IMAGE = (800, 1333)


def compiled_extension(folder: Path) -> ModuleType:
    """``mmcv._ext`` of an installation.

    Raises:
        FileNotFoundError: the folder holds no compiled mmcv.
    """
    found = sorted((folder / "mmcv").glob("_ext*.so"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no mmcv/_ext*.so: give the folder of a compiled mmcv")
    spec = importlib.util.spec_from_file_location("_ext", found[0])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_boxes(number: int, generator: torch.Generator) -> Tensor:
    """[number, 4] inside the image, sides of 16 to 112 px."""
    height, width = IMAGE
    sides = 16 + 96 * torch.rand(number, 2, generator=generator)
    corner = torch.rand(number, 2, generator=generator) * (torch.tensor([width, height]) - sides)
    return torch.cat([corner, corner + sides], dim=1)


def nms_work(module: object, number: int) -> Callable[[], Tensor]:
    """NMS over so many boxes."""
    generator = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(number, generator), torch.rand(number, generator=generator)
    return lambda: module.nms(boxes, scores, iou_threshold=0.7, offset=0)  # type: ignore[attr-defined]


def roi_align_work(module: object, number: int, side: int, channels: int) -> Callable[[], Tensor]:
    """Forward and backward of RoIAlign on a map of stride 4; [outputs, gradient] flattened."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, channels, IMAGE[0] // 4, IMAGE[1] // 4, generator=generator)
    rois = torch.cat([torch.zeros(number, 1), random_boxes(number, generator)], dim=1)
    output = features.new_zeros(number, channels, side, side)
    empty = features.new_zeros(0)
    sizes = dict(aligned_height=side, aligned_width=side, spatial_scale=0.25, sampling_ratio=0, pool_mode=1)

    def work() -> Tensor:
        gradient = torch.zeros_like(features)
        module.roi_align_forward(features, rois, output, empty, empty, aligned=True, **sizes)  # type: ignore[attr-defined]
        module.roi_align_backward(output, rois, empty, empty, gradient, aligned=True, **sizes)  # type: ignore[attr-defined]
        return torch.cat([output.flatten(), gradient.flatten()])

    return work


def run(quick: bool = False, mmcv: Path | None = None) -> list[Row]:
    """A row an operator; the results of both must be identical."""
    numbers = (50, 8, 8) if quick else (2000, 512, 64)
    peer = None if mmcv is None else compiled_extension(mmcv)
    works: dict[str, Callable[[object], Callable[[], Tensor]]] = {
        f"NMS, {numbers[0]} boxes": lambda module: nms_work(module, numbers[0]),
        f"RoIAlign 7x7 and its gradient, {numbers[1]} boxes": lambda m: roi_align_work(m, numbers[1], 7, 256),
        f"RoIAlign 14x14 and its gradient, {numbers[2]} boxes": lambda m: roi_align_work(m, numbers[2], 14, 256),
    }
    rows = []
    for title, build in works.items():
        ours = build(make_module(ModuleSpec("ops", None)))
        if peer is None:
            times = take_turns({"ours": ours}, 1 if quick else 5, wall_clock)
            note = "no peer: give --mmcv FOLDER of a compiled mmcv"
            rows.append(alone(title, ("torchvision", times["ours"]), unit="ms", scale=1e3, note=note))
            continue
        theirs = build(peer)
        difference = (ours().double() - theirs().double()).abs().max().item()
        times = take_turns({"theirs": theirs, "ours": ours}, 1 if quick else 7, wall_clock)
        goal = None if quick or title.startswith("NMS") else 1.5
        note = "identical" if difference == 0 else f"largest difference {difference:.1e}"
        row = compare(
            title,
            ("mmcv, compiled", times["theirs"]),
            ("torchvision", times["ours"]),
            unit="ms",
            scale=1e3,
            goal=goal,
            note=note,
        )
        rows.append(row)
    return rows
