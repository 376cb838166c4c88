"""The sample data, many photos and few labels: an image folder, COCO and the Cityscapes layout.

::

    OUT/photos/<2 digits>/<6 digits>.jpg                                   unlabelled, for pre-training
    OUT/coco/{train,val}/<6 digits>.jpg
    OUT/coco/annotations/instances_{train,val}.json                        masks as run-length strings
    OUT/cityscapes/leftImg8bit/{train,val}/scene/scene_<6 digits>_leftImg8bit.png
    OUT/cityscapes/gtFine/{train,val}/scene/scene_<6 digits>_gtFine_labelTrainIds.png
    OUT/sample_data.json                                                   what was asked for

Every scene depends on (seed, split, index) alone: asking for more images keeps the ones that are there.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mst_transfer.datasets.sample.scenes import OBJECT_CLASSES, Scene, draw_scene, scene_generator
from mst_transfer.files.atomic_files import write_text_atomically

GENERATOR_VERSION = 3
STAMP = "sample_data.json"
_FOLDERS = ("photos", "coco", "cityscapes")
_SEQUENCE = "scene"  # Cityscapes groups images by city


@dataclass(frozen=True)
class SampleDataRequest:
    """What to make."""

    seed: int = 0  # other seeds give other scenes
    num_train: int = 64  # labelled training images, for each of detection and segmentation
    num_val: int = 200  # validation images, for each of detection and segmentation
    num_photos: int = 3000  # unlabelled images
    size: int = 96  # side of every image in pixels

    def __post_init__(self) -> None:
        for name in ("num_train", "num_val", "num_photos"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 32 <= self.size <= 1024:
            raise ValueError(f"size must be 32 to 1024 pixels, got {self.size}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in [0, 2**64), got {self.seed}")


def make_sample_data(out: str | Path, request: SampleDataRequest) -> bool:
    """Writes the sample data under ``out``; returns False if it already held exactly this request.

    Raises:
        ValueError: ``out`` has a folder of the same name that is not sample data.
        NotADirectoryError: ``out`` is a file.
    """
    out = Path(out)
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
    """COCO annotations of a scene's objects, ids from ``first_id`` on, masks as run lengths in text that fits JSON."""
    from pycocotools import mask as coco_mask

    annotations = []
    for offset, (mask, label) in enumerate(zip(scene.masks, scene.labels, strict=True)):
        run_lengths = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        annotations.append(
            {
                "id": first_id + offset,
                "image_id": image_id,
                "category_id": label + 1,
                "iscrowd": 0,
                "area": int(coco_mask.area(run_lengths)),
                "bbox": coco_mask.toBbox(run_lengths).astype(int).tolist(),
                "segmentation": {"size": list(mask.shape), "counts": run_lengths["counts"].decode("ascii")},
            }
        )
    return annotations


def _scenes(split: str, count: int, request: SampleDataRequest) -> Iterator[tuple[int, Scene]]:
    for index in range(count):
        yield index, draw_scene(scene_generator(request.seed, split, index), request.size, split == "photos")


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
    content = {
        "info": {"description": f"mst-transfer sample data, seed {request.seed}", "version": str(GENERATOR_VERSION)},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [
            dict(id=number, name=name, supercategory="object") for number, name in enumerate(OBJECT_CLASSES, 1)
        ],
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
    whole_colours = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # patterns are fine
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, *whole_colours] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), pixels, options):
        raise OSError(f"could not write {path}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text_atomically(path, json.dumps(content) + "\n")


def _read_stamp(out: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((out / STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{out / STAMP} is not JSON ({error}); delete it or name another folder") from error
    return content if isinstance(content, dict) else None
