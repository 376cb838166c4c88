"""What the search for leaked images finds: shares of planted copies, of unrelated images, of frames of one drive.

Pools are photos of the sample world and, with ``--data FOLDER``, its ``photos``, ``coco_mini`` and ``camvid``.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import Row, alone, processor_clock
from mst_transfer.card.leakage import find_leaks
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data
from mst_transfer.files.image_folder import find_images

PLACES = (0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)  # of a crop: shares of the rest that lie above it, and to its left
KINDS: dict[str, dict[str, Any]] = {  # of copies
    **{f"resized to {factor:g}×": dict(factor=factor) for factor in (0.25, 0.5, 2)},
    **{f"JPEG of quality {quality}": dict(quality=quality) for quality in (30, 60, 95)},
    **{f"crop of {area:.0%}": dict(keep=(area**0.5, area**0.5)) for area in (0.7, 0.8, 0.9)},
    **{"70% of height": dict(keep=(0.7, 1)), "70% of width": dict(keep=(1, 0.7))},
    **{"mirrored": dict(mirror=True), "all at once": {}},
}


def change(image: Any, place: Any, keep: Any = (1, 1), factor: float = 1, quality: int = 100, mirror: bool = False):
    """Crops [H, W, 3] to shares of its sides, then resizes, recompresses and mirrors it."""
    kept = np.rint(np.multiply(image.shape[:2], keep)).astype(int)
    top, left = np.rint((image.shape[:2] - kept) * place).astype(int)
    image = image[top : top + kept[0], left : left + kept[1]]
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return image[:, ::-1] if mirror else image


def plant(originals: list[str], kind: str, folder: Path) -> dict[str, str]:
    """Writes a copy of each original: copy → original."""
    copies = {str(folder / f"{kind} {number}.png"): path for number, path in enumerate(originals)}
    for number, (copy, path) in enumerate(copies.items()):
        rng = np.random.default_rng(number)
        free = dict(keep=[rng.uniform(0.7, 1) ** 0.5] * 2, factor=rng.uniform(0.25, 2), mirror=number % 2 == 1)
        options = KINDS[kind] or dict(**free, quality=int(rng.integers(30, 96)))
        cv2.imwrite(copy, change(cv2.imread(path), PLACES[number % len(PLACES)], **options))
    return copies


def frames_apart(frames: list[str], seconds: float) -> list[tuple[str, str]]:
    """Pairs of frames of one drive of camvid, which has 30 a second."""
    found = {re.search(r"([^/]+_f?)(\d+)_", path).groups(): path for path in frames}
    later = {key: (key[0], f"{int(key[1]) + round(30 * seconds):0{len(key[1])}}") for key in found}
    return [(found[key], found[other]) for key, other in later.items() if other in found]


def run(quick: bool, data: Path | None) -> list[Row]:
    """Copies that are found, by kind; images of another split, and frames of one drive, that are flagged."""
    size, many, rows, leaked = *((12, 4) if quick else (1000, 100)), [], {}
    roots = ("photos", "coco_mini", "camvid/leftImg8bit") if data else ()
    with tempfile.TemporaryDirectory() as temporary:
        make_sample_data(folder := Path(temporary), SampleDataRequest(num_photos=size, num_val=size // 4, num_train=1))
        sets = {"sample": [find_images(folder / "photos"), find_images(folder / "coco" / "val")]}
        sets |= {name: [find_images(data / name / "train"), find_images(data / name / "val")[:500]] for name in roots}
        for kind in KINDS:
            shares = {}
            for name, (pool, _) in sets.items():
                copies = plant(pool[:: len(pool) // many][:many], kind, folder)
                pairs = find_leaks(copies, (name, pool), cache=folder / f"{name[:4]}.npz").pairs
                shares[name] = len({(val, path) for val, _, path, _ in pairs} & copies.items()) / len(copies)
            rows.append(alone(kind, ("lowest share found", [min(shares.values())]), note=str(shares)))
        for name, (pool, val) in sets.items():
            seconds = processor_clock(lambda a=val, b=pool: leaked.update({b[0]: find_leaks(a, ("pool", b)).leaked}))
            work = f"{name}: {len(val)} × {len(pool)}, {seconds:.0f} s"
            rows.append(alone(work, ("passed", [1 - len(leaked[pool[0]]) / len(val)])))
        for seconds in (1 / 15, 1, 2, 4, 10, 30) if data else ():
            flags = [len(find_leaks([a], ("b", [b])).pairs) for a, b in frames_apart(sum(sets[roots[-1]], []), seconds)]
            rows.append(alone(f"{len(flags)} pairs {seconds:.2g} s apart", ("share flagged", [np.mean(flags)])))
    return rows
