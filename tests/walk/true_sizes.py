"""Data of the true layouts and sizes whose pictures show their own labels: each class has a colour of its own.

A net that reads the colours back knows the truth of whatever a pipeline shows it, after any resizing, crop, mirroring
or padding; see ``planted.py``. Masks of Cityscapes come as downloaded (``labelIds``) and as prepared
(``labelTrainIds``); COCO has wide and tall images, crowds and images without objects.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = 6  # of each of the three channels: 216 colours, 51 apart
OBJECTS = {"person": (1, 255, 0, 0), "car": (3, 0, 255, 0), "dog": (18, 0, 0, 255), "kite": (38, 255, 255, 0)}
GROUND = (128, 128, 128)
BEST = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # Cityscapes, by train id
CAMVID = (0, 1, 2, 4, 5, 7, 8, 10, 11, 12, 13)  # train ids that occur there


def colours(num_classes: int) -> NDArray[np.uint8]:
    """RGB colours of the classes [K, 3], far apart from each other where few are asked for."""
    codes = np.arange(num_classes) * (LEVELS**3 // num_classes)
    return np.stack([codes // 36, codes // 6 % 6, codes % 6], 1).astype(np.uint8) * 51


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Writes PNG, or JPEG that keeps colours within two levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1], BEST if path.suffix != ".png" else [cv2.IMWRITE_PNG_COMPRESSION, 1])


def draw_label_map(rng: np.random.Generator, height: int, width: int, num_classes: int) -> NDArray[np.uint8]:
    """Areas of random classes [H, W] in about 4 x 6 cells with borders anywhere."""
    rows = np.sort(rng.choice(np.arange(40, height - 40), 3, replace=False))
    columns = np.sort(rng.choice(np.arange(40, width - 40), 5, replace=False))
    cells = rng.integers(0, num_classes, (4, 6))
    row_of, column_of = np.searchsorted(rows, np.arange(height)), np.searchsorted(columns, np.arange(width))
    return cells[row_of][:, column_of].astype(np.uint8)


def make_cityscapes(
    root: Path, sizes: dict[str, list[tuple[int, int]]], classes: tuple[int, ...] = tuple(range(19)), suffix: str = ".png"
) -> None:
    """Cityscapes' layout: masks with train ids; of every second image with the downloaded label ids instead.

    Args:
        root: folder to be made.
        sizes: split -> height and width of each image.
        classes: the train ids that occur.
        suffix: of the pictures. Others than .png have train ids alone, as CamVid.
    """
    rng = np.random.default_rng(len(classes))
    for split, shapes in sizes.items():
        for index, (height, width) in enumerate(shapes):
            labels = draw_label_map(rng, height, width, len(classes))
            name = f"town_{index:06d}_000019"
            write_picture(root / "leftImg8bit" / split / "town" / f"{name}_leftImg8bit{suffix}", colours(len(classes))[labels])
            raw = suffix == ".png" and len(classes) == 19 and index % 2 == 1
            values = np.array(LABEL_IDS if raw else classes, np.uint8)
            kind = "labelIds" if raw else "labelTrainIds"
            mask = root / "gtFine" / split / "town" / f"{name}_gtFine_{kind}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(mask), values[labels])


def make_ade20k(root: Path, sizes: dict[str, list[tuple[int, int]]]) -> None:
    """ADE20K's layout; the first row of each mask holds 0, which is ignored."""
    rng = np.random.default_rng(150)
    for split, shapes in sizes.items():
        for index, (height, width) in enumerate(shapes):
            labels = draw_label_map(rng, height, width, 150)
            write_picture(root / "images" / split / f"ADE_{index:08d}.jpg", colours(150)[labels])
            mask = root / "annotations" / split / f"ADE_{index:08d}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            values = labels + 1
            values[0] = 0
            assert cv2.imwrite(str(mask), values)


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


def make_photographs(root: Path, count: int, sizes: list[tuple[int, int]], splits: tuple[str, ...] = ("train",)) -> None:
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
