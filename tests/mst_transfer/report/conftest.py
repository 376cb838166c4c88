"""A small folder of runs, as mmengine and the quickstart leave it; no model is needed to read it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_vit import make_metadata

from mst_transfer.checkpoint import save_backbone
from mst_transfer.configs.saved import FILE
from mst_transfer.report.curves import new_figure

METRICS = {
    "det_mst": {"coco/bbox_mAP": 0.312, "coco/segm_mAP": 0.25},
    "det_random": {"coco/bbox_mAP": 0.204, "coco/segm_mAP": 0.26},
    "seg_mst": {"mIoU": 61.25, "aAcc": 80.0},
    "seg_random": {"mIoU": 50.5, "aAcc": 75.5},
}


def write_log(folder: Path, time: str, rows: list[dict]) -> Path:
    path = folder / time / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(name="write_log")
def _write_log() -> Callable[..., Path]:
    """Writes the log of one start of a run: folder, time, rows."""
    return write_log


def write_finetune(out: Path, name: str) -> None:
    folder, task = out / name, name.split("_")[0]
    metric = next(iter(METRICS[name].items()))
    rows: list[dict] = []
    for epoch in (1, 2):
        for step in (10 * epoch - 5, 10 * epoch):
            rows.append({"lr": 1e-3, "loss": 3.0 / step, "epoch": epoch, "iter": step, "step": step})
        rows.append({metric[0]: metric[1] * epoch / 2, "time": 0.1, "step": epoch})
    write_log(folder, "20250101_120000", rows)
    results = {
        "task": task,
        "config": f"{task}_configs/sample.py",
        "command": f"mst train {task}_configs/sample.py --work-dir <{name}>",
        "seed": 7,
        "checkpoint": "random" if name.endswith("random") else "teacher.safetensors",
        "metrics": METRICS[name],
        "minutes": 1.26,
        "hardware": "CPU, 2 cores",
        "versions": {"torch": "2.14.1"},
        "date": "2025-01-01T12:00:00+00:00",
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / FILE).write_text('{"default_scope": "mmdet"}')
    (folder / "epoch_2.pth").write_bytes(b"")
    (folder / "last_checkpoint").write_text("/elsewhere/epoch_2.pth")
    said = "backbone weights from teacher.safetensors\n  loaded        77\n"
    said += "  resized        1  pos_embed 12x12 -> 16x16"
    if name.endswith("random"):
        said = "TimmViT: random initialisation (checkpoint=None)"
    (folder / "20250101_120000" / "20250101_120000.log").write_text(
        f"2025/01/01 12:00:00 - mmengine - INFO - {said}\n2025/01/01 12:00:01 - next line\n"
    )


def write_pretrain(out: Path) -> None:
    folder = out / "pretrain"
    constant = dict(loss_restoring=1.0, teacher_entropy=5.5, teacher_momentum=0.996, mask_ratio=0.125)
    constant |= dict(images_per_s=30.0, data_share=0.1)
    rows = [
        dict(constant, lr=1e-3 * step, loss=7.0 - 0.01 * step, loss_dino=6.0 - 0.01 * step, step=step)
        for step in range(10, 60, 10)
    ]
    write_log(folder, "20250101_110000", rows)
    (folder / FILE).write_text('{"model": {"head": {"out_dim": 512}}}')
    pictures = folder / "pictures"
    pictures.mkdir()
    figure = new_figure(1, 1)
    figure.subplots().imshow(np.eye(4))
    figure.savefig(pictures / "mask.png")
    entry = {"file": "mask.png", "title": "Importance & mask", "caption": "The least looked-at patches."}
    (pictures / "index.json").write_text(json.dumps([entry]))
    provenance = {"config": "mst_vit_sample.py", "epoch": 5, "seed": 7}
    sizes = dict(arch_kwargs={"img_size": 96, "patch_size": 8}, img_size=(96, 96), embed_dim=192)
    tensors = {"patch_embed.proj.weight": torch.zeros(192, 3, 8, 8), "cls_token": torch.zeros(1, 1, 192)}
    save_backbone(folder / "teacher.safetensors", tensors, make_metadata(**sizes, provenance=provenance))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A complete folder of five runs."""
    out = tmp_path / "quickstart"
    write_pretrain(out)
    for name in METRICS:
        write_finetune(out, name)
    (out / "stages.tsv").write_text("pre-training\t4.2\tbash tools/pretrain.sh CONFIG 1\nbroken line\n")
    return out
