"""The sample data: synthetic scenes written as an image folder, as COCO and in the Cityscapes layout.

::

    OUT/photos/<2 digits>/<6 digits>.jpg                                   unlabelled, for pre-training
    OUT/coco/{train,val}/<6 digits>.jpg
    OUT/coco/annotations/instances_{train,val}.json                        masks as run-length strings
    OUT/cityscapes/leftImg8bit/{train,val}/scene/scene_<6 digits>_leftImg8bit.png
    OUT/cityscapes/gtFine/{train,val}/scene/scene_<6 digits>_gtFine_labelTrainIds.png
    OUT/sample_data.json                                                   what was asked for

Every scene depends on (seed, split, index) alone: asking for more images keeps the ones that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mst_transfer.datasets.scenes import (
    CLASSES,
    OBJECT_CLASSES,
    PALETTE,
    STUFF_CLASSES,
    Scene,
    draw_scene,
    scene_generator,
)

__all__ = [
    "CLASSES",
    "OBJECT_CLASSES",
    "PALETTE",
    "STUFF_CLASSES",
    "SampleDataRequest",
    "main",
    "make_sample_data",
]

GENERATOR_VERSION = 1
OBJECT_PALETTE: tuple[tuple[int, int, int], ...] = PALETTE[len(STUFF_CLASSES) :]
STAMP = "sample_data.json"
_FOLDERS = ("photos", "coco", "cityscapes")
_SEQUENCE = "scene"  # Cityscapes groups images by city


@dataclass(frozen=True)
class SampleDataRequest:
    """What to make.

    Attributes:
        seed: other seeds give other scenes.
        num_train: labelled training images, for each of detection and segmentation.
        num_val: validation images, for each of detection and segmentation.
        num_photos: unlabelled images.
        size: side of every image in pixels.
    """

    seed: int = 0
    num_train: int = 100
    num_val: int = 60
    num_photos: int = 600
    size: int = 128

    def __post_init__(self) -> None:
        for name in ("num_train", "num_val", "num_photos"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 32 <= self.size <= 1024:
            raise ValueError(f"size must be 32 to 1024 pixels, got {self.size}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


def make_sample_data(out: str | Path, request: SampleDataRequest | None = None) -> bool:
    """Write the sample data under ``out``, unless it is there already.

    Args:
        out: folder to write; created if missing.
        request: what to make; the defaults of :class:`SampleDataRequest` if None.

    Returns:
        True if images were drawn, False if ``out`` already held exactly this request.

    Raises:
        ValueError: ``out`` has a folder of the same name that is not sample data.
        NotADirectoryError: ``out`` is a file.
    """
    out = Path(out)
    request = request or SampleDataRequest()
    wanted = {"generator_version": GENERATOR_VERSION, **asdict(request)}
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; name a folder for the sample data")
    stamp = _read_stamp(out)
    if stamp == wanted and all((out / folder).is_dir() for folder in _FOLDERS):
        return False
    foreign = [str(out / folder) for folder in _FOLDERS if stamp is None and (out / folder).exists()]
    if foreign:
        raise ValueError(
            f"{', '.join(foreign)} exists, but {out / STAMP} does not: this is not sample data "
            "and is left alone. Name another folder"
        )
    partial = out / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    _write_photos(partial / "photos", request)
    for split, count in (("train", request.num_train), ("val", request.num_val)):
        _write_coco(partial / "coco", split, count, request)
        _write_cityscapes(partial / "cityscapes", split, count, request)
    _write_json(out / STAMP, {**wanted, "incomplete": True})  # so that an interrupted exchange is recognised
    for folder in _FOLDERS:
        shutil.rmtree(out / folder, ignore_errors=True)
        os.replace(partial / folder, out / folder)
    partial.rmdir()
    _write_json(out / STAMP, wanted)
    return True


def encode_instances(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO annotations of a scene's objects.

    Args:
        scene: the scene; its masks are not empty.
        image_id: id of the image.
        first_id: id of the first annotation; the others follow.

    Returns:
        One dict per object: ``segmentation`` as run lengths (a string, so that it fits JSON), ``bbox`` as
        ``[x, y, width, height]`` around the visible pixels, ``area`` in pixels, ``category_id`` from 1.
    """
    from pycocotools import mask as coco_mask

    annotations = []
    for offset, (mask, label) in enumerate(zip(scene.masks, scene.labels, strict=True)):
        run_lengths = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        annotations.append(
            {
                "id": first_id + offset,
                "image_id": image_id,
                "category_id": label + 1,
                "iscrowd": 0,
                "area": int(mask.sum()),
                "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                "segmentation": {
                    "size": [int(side) for side in run_lengths["size"]],
                    "counts": run_lengths["counts"].decode("ascii"),
                },
            }
        )
    return annotations


def _scenes(split: str, count: int, request: SampleDataRequest) -> Iterator[tuple[int, Scene]]:
    for index in range(count):
        yield index, draw_scene(scene_generator(request.seed, split, index), request.size)


def _write_photos(folder: Path, request: SampleDataRequest) -> None:
    for index, scene in _scenes("photos", request.num_photos, request):
        _write_image(folder / f"{index % 10:02d}" / f"{index:06d}.jpg", scene.image)


def _write_coco(folder: Path, split: str, count: int, request: SampleDataRequest) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, scene in _scenes(f"coco/{split}", count, request):
        name = f"{index:06d}.jpg"
        _write_image(folder / split / name, scene.image)
        images.append({"id": index + 1, "file_name": name, "width": request.size, "height": request.size})
        annotations += encode_instances(scene, image_id=index + 1, first_id=len(annotations) + 1)
    categories = [
        {"id": number + 1, "name": name, "supercategory": "object"} for number, name in enumerate(OBJECT_CLASSES)
    ]
    content = {
        "info": {
            "description": f"mst-transfer sample data, seed {request.seed}",
            "version": str(GENERATOR_VERSION),
        },
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    _write_json(folder / "annotations" / f"instances_{split}.json", content)


def _write_cityscapes(folder: Path, split: str, count: int, request: SampleDataRequest) -> None:
    for index, scene in _scenes(f"cityscapes/{split}", count, request):
        stem = f"{_SEQUENCE}_{index:06d}"
        _write_image(folder / "leftImg8bit" / split / _SEQUENCE / f"{stem}_leftImg8bit.png", scene.image)
        _write_image(folder / "gtFine" / split / _SEQUENCE / f"{stem}_gtFine_labelTrainIds.png", scene.semantic)


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write RGB ``[H, W, 3]`` or labels ``[H, W]``; the suffix tells the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image[..., ::-1] if image.ndim == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), pixels, options):
        raise OSError(f"could not write {path}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _read_stamp(out: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((out / STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{out / STAMP} is not JSON ({error}); delete it or name another folder") from error
    return content if isinstance(content, dict) else None


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``mst sample-data``."""
    defaults = SampleDataRequest()
    parser = argparse.ArgumentParser(
        prog="mst sample-data",
        description="Draw the sample data: photos to pre-train on, COCO and Cityscapes sets to fine-tune on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", nargs="?", default="data/sample", metavar="OUT", help="folder to write")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="other seeds give other scenes")
    parser.add_argument("--num-train", type=int, default=defaults.num_train, help="training images of each task")
    parser.add_argument("--num-val", type=int, default=defaults.num_val, help="validation images of each task")
    parser.add_argument("--num-photos", type=int, default=defaults.num_photos, help="unlabelled images")
    parser.add_argument("--size", type=int, default=defaults.size, help="side of the images in pixels")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mst sample-data``; returns the exit status."""
    args = build_parser().parse_args(argv)
    started = time.perf_counter()
    try:
        request = SampleDataRequest(args.seed, args.num_train, args.num_val, args.num_photos, args.size)
        drawn = make_sample_data(args.out, request)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"mst sample-data: {error}", file=sys.stderr)
        return 1
    counts = f"{request.num_photos} photos, 2 x {request.num_train} train, 2 x {request.num_val} val"
    if drawn:
        print(f"{args.out}: drew {counts} in {time.perf_counter() - started:.1f} s (seed {request.seed})")
    else:
        print(f"{args.out}: {counts} (seed {request.seed}) are there already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
