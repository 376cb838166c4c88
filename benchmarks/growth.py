"""How time and memory grow with the image, the batch, the number of crops and the number of detections.

Each size runs in a process of its own. Memory is what the work adds to the largest resident size of that process. The
note says the power of the size that the step from the size before follows: 1 is proportional, 2 quadratic.
"""

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.measure import Row, alone, peak_memory, processor_clock, take_turns

SIZES: dict[str, tuple[int, ...]] = {
    "image side, ViT-S features": (224, 448, 896),
    "image side, ViT-S features in windows": (224, 448, 896),
    "batch, MST step of a small ViT": (16, 32, 64),
    "local crops, MST step of a small ViT": (2, 4, 8),
    "detections, COCO box figures": (10_000, 40_000, 160_000),
}
QUICK = {"image": (32, 64), "batch": (2, 4), "local": (1, 2), "detections": (100, 200)}


def features(side: int, window_size: int = 0) -> Callable[[], object]:
    """One image through ViT-S/16, the last map."""
    import mst_transfer  # noqa: F401 - lets the MM libraries import
    from mst_transfer.models.backbones.vit import TimmViT

    norm = "none" if window_size else "last"
    net = TimmViT("vit_small_patch16_224", out_indices=(11,), out_norm=norm, window_size=window_size).eval()
    image = torch.randn(1, 3, side, side)

    def work() -> object:
        with torch.no_grad():
            return net(image)

    return work


def step(batch: int, num_local: int) -> Callable[[], object]:
    """A step of the study's MST."""
    from benchmarks.step import OurStep

    vit = dict(patch_size=16, embed_dim=128, depth=6, num_heads=4)
    ours = OurStep(True, None, dict(sizes=(96, 48), out_dim=1024, vit=vit))
    views = {
        "global_crops": torch.randint(0, 256, (batch, 2, 3, 96, 96), dtype=torch.uint8),
        "local_crops": torch.randint(0, 256, (batch, num_local, 3, 48, 48), dtype=torch.uint8),
        "index": torch.arange(batch),
    }
    return lambda: ours(views)


def coco_figures(num_detections: int) -> Callable[[], object]:
    """``mst_transfer.CocoMetric`` over random boxes, 100 an image."""
    import numpy as np

    from mst_transfer.evaluation.coco_metric import CocoMetric

    rng = np.random.default_rng(0)
    num_images = max(num_detections // 100, 1)
    samples: list[dict[str, Any]] = []
    for number in range(num_images):
        corner = rng.uniform(0, 300, (100, 2))
        boxes = torch.from_numpy(np.concatenate([corner, corner + rng.uniform(10, 150, (100, 2))], axis=1)).float()
        labels = torch.from_numpy(rng.integers(0, 80, 100))
        truth = [dict(bbox=boxes[i].tolist(), bbox_label=int(labels[i]), ignore_flag=0, mask=[]) for i in range(8)]
        predicted = dict(bboxes=boxes + 3, labels=labels, scores=torch.from_numpy(rng.random(100)).float())
        samples.append(dict(img_id=number, ori_shape=(500, 500), instances=truth, pred_instances=predicted))

    def work() -> object:
        metric = CocoMetric(metric="bbox")
        metric.dataset_meta = dict(classes=tuple(f"class {number}" for number in range(80)))
        metric.process({}, samples)
        return metric.evaluate(num_images)

    return work


def build(name: str, size: int) -> Callable[[], object]:
    """The work of a row."""
    if name.startswith("image side"):
        return features(size, 14 if name.endswith("windows") else 0)
    if name.startswith("batch"):
        return step(size, 4)
    if name.startswith("local"):
        return step(32, size)
    return coco_figures(size)


def measure(name: str, size: int, rounds: int) -> dict[str, Any]:
    """Seconds of each round and bytes of memory, in this process."""
    work = build(name, size)
    before = peak_memory()
    (seconds,) = take_turns({name: work}, rounds, processor_clock).values()
    return {"seconds": seconds, "bytes": peak_memory() - before}


def measure_apart(name: str, size: int, rounds: int) -> dict[str, Any]:
    """The same in a new process."""
    command = [sys.executable, "-m", "benchmarks.growth", name, str(size), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}, {size}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run(quick: bool = False) -> list[Row]:
    """Two rows a size, time and memory."""
    rows = []
    for name, sizes in SIZES.items():
        if quick:
            sizes = next(tiny for start, tiny in QUICK.items() if name.startswith(start))
        before: dict[str, tuple[int, float]] = {}
        for size in sizes:
            result = measure_apart(name, size, 1 if quick else 3)
            values = {"s": statistics.median(result["seconds"]), "GB": result["bytes"] / 1e9}
            for unit, value in values.items():
                row = alone(f"{name}: {size:,}", ("ours", [value]), unit=unit)
                if unit in before and value > 0 and before[unit][1] > 0:
                    old_size, old = before[unit]
                    row = replace(row, note=f"power {math.log(value / old) / math.log(size / old_size):.2f}")
                before[unit] = (size, value)
                rows.append(row)
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
