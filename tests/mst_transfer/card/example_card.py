"""A card as ``mst evaluate`` leaves it: three checkpoints, two tasks, three numbers of labels, a job that failed."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mst_transfer.card.pictures import PHOTO, TRUTH, Instances, colours_of, draw_answer, save_pictures
from mst_transfer.card.statistics import Difference, sentence

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>|`{{7*7}}$a$"
LONG = "an_ablation_without_the_restoring_loss_but_with_sixteen_local_crops_and_a_longer_warm_up_epoch_0800_teacher"
NAMES = ("mst_vit_small_800", LONG, EVIL)
TASKS = {"camvid": ("mIoU", ("dense_knn", "dense_linear", "setr_pup")), "coco_mini": ("box mAP", ("mask_rcnn_frozen",))}
LABELS = ("16", "10%", "100%")
CLASSES = ("road", "sidewalk", "building", "sky", "car", EVIL)
STRENGTH = dict(zip(NAMES, (3.1, 2.9, 0.0), strict=True))


def rows(random: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for task, (metric, protocols) in TASKS.items():
        for protocol in protocols:
            for amount, labels in enumerate(LABELS):
                for name in NAMES:
                    seeds = [0] if protocol == "setr_pup" else [0, 1, 2]
                    per_seed = (18 + 7 * amount + STRENGTH[name] + random.normal(0, 0.6, len(seeds))).round(4).tolist()
                    value = float(np.mean(per_seed))
                    row: dict[str, Any] = dict(task=task, metric=metric, protocol=protocol, labels=labels)
                    row |= dict(checkpoint=name, seeds=seeds, per_seed=per_seed, value=value)
                    row |= dict(ci95=[value - 1.4, value + 1.3], num_images=101)
                    if labels == "100%" and metric == "mIoU":
                        row["per_class"] = {kind: value + 9 * k - 20 for k, kind in enumerate(CLASSES)}
                        row["per_class"]["sky"] = None
                    found.append(row)
    return found


def differences(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for one in measured:
        for other in measured:
            same = all(one[key] == other[key] for key in ("task", "metric", "protocol", "labels"))
            if same and NAMES.index(one["checkpoint"]) < NAMES.index(other["checkpoint"]):
                entry = {key: one[key] for key in ("task", "metric", "protocol", "labels")}
                primary = one["protocol"] in ("dense_knn", "mask_rcnn_frozen") and one["labels"] == "10%"
                entry |= dict(a=one["checkpoint"], b=other["checkpoint"], primary=primary, detectable=2.5)
                gap = one["value"] - other["value"]
                ends = [gap - 1.2, gap + 1.1]
                p_value = (0.0004 if ends[0] > 0 else 0.62) if primary else None
                entry |= dict(difference=gap, ci95=ends, adjusted=p_value)
                kind = "seeds" if len(one["seeds"]) == 3 else "one seed, images only"
                entry["verdict"] = sentence(Difference(gap, *ends, 0.01, 2.5, kind), p_value)
                found.append(entry)
    return found


def example() -> dict[str, Any]:
    """The content of a ``card.json``."""
    measured = rows(np.random.default_rng(0))
    command = "mst evaluate mst=work_dirs/mst/teacher.safetensors dino=dino.pth random --on camvid coco_mini --out card"
    jobs = [
        dict(id=f"{task}-{protocol}-{labels}-{k}", command=f"mst evaluate --job {k}", status="done", minutes=1.5 + k)
        for task, (_, protocols) in TASKS.items()
        for protocol in protocols
        for labels in LABELS
        for k in range(3)
    ]
    failed = dict(id=f"camvid-setr_pup-{LONG}", command=f"mst train {EVIL}", status="failed", minutes=None)
    jobs.append(failed | dict(error=f"Traceback\nRuntimeError: out of memory {EVIL}"))
    pairs = [dict(val="a.png", pool="train", path=EVIL, score=0.97)]
    leaks = dict(method="correlation", threshold=0.88, sentence=f"1 of 101 images: {EVIL}", pairs=pairs)
    load = "loaded 150 tensors of 152\n  skipped: head.weight, head.bias\nnormalisation: ImageNet's"
    return dict(
        version=1,
        protocol_hash="9f2c61d07be3a4485a0e",
        protocol={"knn": {"k": 30, "temperature": 0.02}, "seeds": [0, 1, 2], "image": {"side": 480, "fp32": True}},
        command=command,
        checkpoints=[
            dict(name=name, path=f"/data/{name}.pth", sha256="ab" * 32, load=load, patch_size=16) for name in NAMES
        ],
        rows=measured,
        differences=differences(measured),
        leakage={"camvid": leaks, "coco_mini": leaks},
        jobs=jobs,
        environment={"processor": "AMD EPYC, 2 cores", "versions": {"torch": "2.9.0", "timm": "1.0.20"}},
    )


def write_example(folder: Path) -> Path:
    """Write a card's folder, pictures and all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(json.dumps(card := example()))
    places = [folder / "pictures" / job["id"] for job in card["jobs"]]
    random = np.random.default_rng(1)
    photos = {f"{n:04d}_{EVIL[:8]}.png": random.integers(0, 256, (90, 120, 3), dtype=np.uint8) for n in range(3)}
    photos = {name: np.kron(photo[::15, ::15], np.ones((15, 15, 1), np.uint8)) for name, photo in photos.items()}
    labels = np.kron(np.arange(6).reshape(2, 3) % 5, np.ones((45, 40), np.int64))
    masks = np.stack([labels == 1, labels == 4])
    boxes = np.array([[40, 0, 80, 45], [40, 45, 80, 90]], np.float32)
    for task, answer in (
        ("camvid", labels),
        ("coco_mini", Instances(boxes, masks, np.array([1, 5]), np.array([0.91, 0.34]))),
    ):
        for number, column in enumerate((PHOTO, TRUTH, *NAMES)):
            cells = {n: {column: p if column == PHOTO else draw_answer(p, answer, CLASSES)} for n, p in photos.items()}
            legend = colours_of([answer], CLASSES)
            save_pictures(
                places[number] / task,
                "predictions",
                f"{task}, 100% labels",
                cells,
                "Evenly.",
                legend,
            )
    for number, column in enumerate((PHOTO, *NAMES)):
        for title in ("Attention", "Principal components"):
            cells = {name: {column: photo} for name, photo in photos.items()}
            save_pictures(places[number] / title, "maps", title, cells, "Bright is high.")
    return folder
