"""Data of the true layouts and sizes whose pictures show their own labels: each class has a colour of its own.

A net that reads the colours back knows the truth of whatever a pipeline shows it: see ``planted.py`` and
``planted_detector.py``. Masks of Cityscapes come as downloaded and as prepared; COCO has wide and tall images, crowds
and images without objects.
"""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from planted import BEST, LAYOUTS, draw_labels, write_image

OBJECTS = {"person": (1, 255, 0, 0), "car": (3, 0, 255, 0), "dog": (18, 0, 0, 255), "kite": (38, 255, 255, 0)}
GROUND = (128, 128, 128)


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Writes PNG, or JPEG that keeps colours within two levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1], BEST if path.suffix != ".png" else [cv2.IMWRITE_PNG_COMPRESSION, 1])


def make_segmentation(
    root: Path, kind: str, sizes: dict[str, list[tuple[int, int]]], second: str | None = None
) -> None:
    """A set in one of ``planted.LAYOUTS``; every second image may be in another.

    Args:
        root: the folder that ``MST_DATA_ROOT`` names.
        kind: the layout.
        sizes: split -> height and width of each image.
        second: layout of every second image.
    """
    for split, shapes in sizes.items():
        for index, (height, width) in enumerate(shapes):
            name = f"{split}_{index}"
            labels = draw_labels(height, width, len(LAYOUTS[kind].values), seed_of(name))
            write_image(root, second if second and index % 2 else kind, name, labels, split)


def seed_of(name: str) -> int:
    """What an image of ``make_segmentation`` was drawn with; ``name`` is its file's."""
    split, index = re.findall(r"(train|val)_(\d+)", name)[-1]
    return int(index) + 100 * (split == "val")


def make_coco(root: Path, folders: dict[str, tuple[str, list[tuple[int, int]]]], names: dict[int, str]) -> None:
    """COCO's layout: in each image a rectangle of each of two or three classes; a crowd; the last image is empty.

    Args:
        root: folder to be made.
        folders: folder of the images -> annotation file and height and width of each image.
        names: category id -> name; objects are drawn of those in ``OBJECTS`` and of the first few others.
    """
    rng = np.random.default_rng(len(names))
    drawn = [number for number, name in names.items() if name in OBJECTS] or list(names)[: len(OBJECTS)]
    for folder, (ann_file, shapes) in folders.items():
        images, annotations = [], []
        for index, (height, width) in enumerate(shapes):
            picture = np.full((height, width, 3), GROUND, np.uint8)
            number = 1000 * len(folder) + index
            images.append(dict(id=number, file_name=f"{number:012d}.jpg", height=height, width=width))
            corners = [(0, 0), (0, 1), (1, 0)] if index < len(shapes) - 1 else []
            for (row, column), category in zip(corners, rng.permutation(drawn), strict=False):
                h, w = rng.integers(height // 4, height // 2 - 12), rng.integers(width // 4, width // 2 - 12)
                y, x = row * height // 2 + rng.integers(1, 10), column * width // 2 + rng.integers(1, 10)
                colour = list(OBJECTS.values())[drawn.index(category)][1:]
                picture[y : y + h, x : x + w] = colour
                box = [int(v) for v in (x, y, w, h)]
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                shape = dict(bbox=box, area=int(w * h), iscrowd=0, segmentation=[[int(v) for v in outline]])
                annotations.append(dict(shape, id=len(annotations) + 1, image_id=number, category_id=int(category)))
            if index == 1:
                annotations.append(_crowd(len(annotations) + 1, number, drawn[0], height, width))
            write_picture(root / folder / f"{number:012d}.jpg", picture)
        categories = [dict(id=number, name=name) for number, name in names.items()]
        path = root / ann_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def _crowd(number: int, image: int, category: int, height: int, width: int) -> dict[str, Any]:
    """A crowd in the lower right corner, as run lengths in COCO's order: columns, top to bottom."""
    mask = np.zeros((height, width), np.uint8)
    mask[height - 60 :, width - 80 :] = 1
    flat = mask.T.ravel()
    borders = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *borders, len(flat)]).tolist()
    box = [width - 80, height - 60, 80, 60]
    segmentation = dict(counts=counts, size=[height, width])
    return dict(
        id=number, image_id=image, category_id=category, iscrowd=1, bbox=box, area=4800, segmentation=segmentation
    )


def make_photographs(root: Path, count: int, sizes: list[tuple[int, int]], splits: tuple[str, ...]) -> None:
    """``root/{splits}/<class>/<name>.JPEG``: noise of two colours a class, ``count`` images a split in four classes."""
    rng = np.random.default_rng(0)
    for split in splits:
        drawn: list[bytes] = []
        for index in range(count):
            if index < 4 * len(sizes):
                height, width = sizes[index % len(sizes)]
                small = rng.integers(0, 256, (height // 25, width // 25, 3)).astype(np.uint8)
                small[..., index % 3] //= 1 + index % 4
                big = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
                drawn.append(cv2.imencode(".jpg", big)[1].tobytes())
            path = root / split / f"n{index % 4:08d}" / f"{split}_{index}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(drawn[index % len(drawn)])
