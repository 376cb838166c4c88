"""What the search for leaked images finds: shares of planted copies, of unrelated images, of frames of one drive.

Pools are scenes of the sample world and, with ``--data FOLDER``, its ``photos``, ``coco_mini`` and ``camvid``.
"""

import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import Row, alone, processor_clock
from mst_transfer.card.leakage import find_leaks
from mst_transfer.datasets.sample.scenes import draw_scene, scene_generator

KINDS: dict[str, dict[str, Any]] = {  # of copies
    **{f"resized to {factor:g}×": dict(factor=factor) for factor in (0.25, 0.5, 2)},
    **{f"JPEG of quality {quality}": dict(quality=quality) for quality in (30, 60, 95)},
    **{f"crop of {area:.0%}": dict(keep=(area**0.5, area**0.5)) for area in (0.7, 0.8, 0.9)},
    **{"70% of height": dict(keep=(0.7, 1)), "70% of width": dict(keep=(1, 0.7))},
    **{"mirrored": dict(mirror=True), "all at once": {}},
}
PLACES = (0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)  # of a crop: shares of the rest that lie above it, and to its left


def change(
    image: Any, place: Any, keep: Any = (1, 1), factor: float = 1, quality: int = 0, mirror: bool = False
) -> Any:
    """Crops [H, W, 3] to shares of its sides, then resizes, recompresses and mirrors it."""
    kept = np.rint(np.multiply(image.shape[:2], keep)).astype(int)
    top, left = np.rint((image.shape[:2] - kept) * place).astype(int)
    image = image[top : top + kept[0], left : left + kept[1]]
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if quality:
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return image[:, ::-1] if mirror else image


def plant(originals: list[str], kind: str, folder: Path) -> dict[str, str]:
    """Writes a copy of each original, without loss: copy → original."""
    copies = {str(folder / f"{kind} {number}.png"): path for number, path in enumerate(originals)}
    for number, (copy, path) in enumerate(copies.items()):
        rng, options = np.random.default_rng(number), KINDS[kind]
        if not options:
            options = dict(keep=[rng.uniform(0.7, 1) ** 0.5] * 2, factor=rng.uniform(0.25, 2), mirror=number % 2 == 1)
            options["quality"] = int(rng.integers(30, 96))
        cv2.imwrite(copy, change(cv2.imread(path), PLACES[number % len(PLACES)], **options))
    return copies


def write_scenes(folder: Path, split: str, count: int) -> list[str]:
    """Draws scenes of the sample world."""
    paths = [str(folder / f"{split.replace('/', ' ')} {index:05d}.png") for index in range(count)]
    for index, path in enumerate(paths):
        cv2.imwrite(path, draw_scene(scene_generator(0, split, index)).image[..., ::-1])
    return paths


def frames_apart(frames: list[str], seconds: float) -> list[tuple[str, str]]:
    """Pairs of frames of one drive of camvid, which has 30 a second."""
    found = {re.search(r"([^/]+_f?)(\d+)_", path).groups(): path for path in frames}
    later = {key: (key[0], f"{int(key[1]) + round(30 * seconds):0{len(key[1])}}") for key in found}
    return [(found[key], found[other]) for key, other in later.items() if other in found]


def run(quick: bool, data: Path | None) -> list[Row]:
    """Copies that are found, by kind; unrelated images, and frames of one drive, that are flagged; time."""
    num_scenes, many, rows, frames = *((12, 4) if quick else (1000, 100)), [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sets = {"sample": [write_scenes(folder, split, num_scenes) for split in ("photos", "coco/val")]}
        for name in ("photos", "coco_mini", "camvid/leftImg8bit") if data else ():
            frames = [sorted(map(str, (data / name / split).rglob("*.jpg"))) for split in ("train", "val")]
            sets[name] = frames
        for kind in KINDS:
            found = {}
            for name, (pool, _) in sets.items():
                copies = plant(pool[:: len(pool) // many][:many], kind, folder)
                pairs = find_leaks([*copies], ("pool", pool), cache=folder / "cache.npz").pairs
                found[name] = len({(val, path) for val, _, path, _ in pairs} & copies.items()) / len(copies)
            note = ", ".join(f"{name} {share:.3f}" for name, share in found.items())
            rows.append(alone(kind, ("share found, the lowest", [min(found.values())]), note=note))
        for name, (pool, val) in sets.items():
            search = partial(find_leaks, val, (name, pool), cache=folder / f"{len(rows)}.npz")
            cold, warm, leaked = processor_clock(search), processor_clock(search), search().leaked
            note = f"{1e3 * (cold - warm) / len(pool + val):.2f} ms an image, {1e6 * warm / len(pool) / len(val):.1f} µs a pair"
            rows.append(alone(f"{name}: {len(val)} × {len(pool)}", ("passed", [1 - len(leaked) / len(val)]), note=note))
        for seconds in (1 / 15, 0.5, 1, 2, 4, 10, 30) if data else ():
            pairs = frames_apart([*sets[name][0], *sets[name][1]], seconds)[::2]
            flagged = np.mean([bool(find_leaks([a], ("other", [b])).pairs) for a, b in pairs])
            rows.append(alone(f"frames {seconds:.2g} s apart", ("flagged", [flagged]), note=f"{len(pairs)} pairs"))
    return rows
