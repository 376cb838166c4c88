"""A small folder of runs, as mmengine and the quickstart leave it; no model is needed to read it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_vit import make_metadata

from mst_transfer.checkpoint import save_backbone
from mst_transfer.configs.saved import FILE

METRICS = {
    "det_mst": {"coco/bbox_mAP": 0.312, "coco/segm_mAP": 0.25},
    "det_random": {"coco/bbox_mAP": 0.204, "coco/segm_mAP": 0.26},
    "seg_mst": {"mIoU": 61.25, "aAcc": 80.0},
    "seg_random": {"mIoU": 50.5, "aAcc": 75.5},
}


def write_log(folder: Path, time: str, rows: list[dict]) -> Path:
    """Writes the log of one start of a run."""
    path = folder / time / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(name="write_log")
def _write_log():
    return write_log


def write_finetune(folder: Path) -> None:
    task, (metric, value) = folder.name.split("_")[0], next(iter(METRICS[folder.name].items()))
    rows: list[dict] = [{"lr": 1e-3, "loss": 3.0 / step, "step": step} for step in (5, 10, 15, 20)]
    rows[2:2] = [{metric: value / 2, "time": 0.1, "step": 10}]
    write_log(folder, "20250101_120000", [*rows, {metric: value, "step": 20}])
    command = f"mst train {task}_configs/sample.py --work-dir <{folder.name}>"
    results = dict(command=command, seed=7, metrics=METRICS[folder.name], minutes=1.26)
    results |= dict(hardware="CPU, 2 cores", versions={"torch": "2.14.1"})
    (folder / "results.json").write_text(json.dumps(results))
    (folder / FILE).write_text('{"default_scope": "mmdet"}')
    (folder / "epoch_2.pth").write_bytes(b"")
    (folder / "last_checkpoint").write_text("/elsewhere/epoch_2.pth")


def write_pretrain(folder: Path) -> None:
    constant = dict(loss_restoring=1.0, teacher_entropy=5.5, teacher_momentum=0.996, mask_ratio=0.125)
    losses = [dict(lr=1e-3 * step, loss=7 - 0.01 * step, loss_dino=6 - 0.01 * step) for step in range(10, 60, 10)]
    write_log(folder, "20250101_110000", [constant | row | {"step": 10 * n} for n, row in enumerate(losses, 1)])
    (folder / FILE).write_text('{"model": {"head": {"out_dim": 512}}}')
    pictures = folder / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "mask.png"), np.eye(4, dtype=np.uint8) * 255)
    entry = {"file": "mask.png", "title": "Importance & mask", "caption": "The least looked-at patches."}
    (pictures / "index.json").write_text(json.dumps([entry]))
    sizes = dict(arch_kwargs={"img_size": 96, "patch_size": 8}, img_size=(96, 96), embed_dim=192)
    tensors = {"patch_embed.proj.weight": torch.zeros(192, 3, 8, 8), "cls_token": torch.zeros(1, 1, 192)}
    save_backbone(folder / "teacher.safetensors", tensors, make_metadata(**sizes, provenance={"epoch": 5, "seed": 7}))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A complete folder of five runs."""
    out = tmp_path / "quickstart"
    write_pretrain(out / "pretrain")
    for name in METRICS:
        write_finetune(out / name)
    (out / "stages.tsv").write_text("pre-training\t4.2\tbash tools/pretrain.sh CONFIG 1\nbroken line\n")
    return out
