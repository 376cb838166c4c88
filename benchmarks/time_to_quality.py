"""k-NN accuracy against processor time: facebookresearch/dino with its own data pipeline, and MST.

The same photographs, small ViT, crops, batch, learning rate, weight decay, momentum and temperatures, taken from
``pretrain/configs/study/mst.py``; both schedules end with their run. DINO is given a number of minutes of processor
time, loading included and evaluation not; MST gets a share of them, everything that ``mst-pretrain`` does included.
Processor time is measured, so that what else the machine does does not count.

FOLDER holds ``photos/{train,val}/<class>/``.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.dino_step import DinoStep, dino_code
from benchmarks.measure import Row, alone
from mst_transfer.compat.serialization import write_atomically
from mst_transfer.configs import shipped
from mst_transfer.probes.backbones import load_frozen
from mst_transfer.probes.features import extract_features
from mst_transfer.probes.knn import knn_accuracy
from mst_transfer.probes.labelled_images import LabelledImages

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "pretrain/configs/study/mst.py"


def study_config() -> Any:
    """The recipe that both follow."""
    from mmengine.config import Config

    return Config.fromfile(str(shipped.resolve_config(CONFIG)))


def architecture(cfg: Any) -> dict[str, Any]:
    """timm's options of the study's ViT."""
    return {k: v for k, v in cfg.model.backbone.items() if k not in ("arch", "drop_path_rate")}


def knn_top1(checkpoint: Path, data: Path, cfg: Any, interpolation: str | None = None) -> float:
    """20 nearest neighbours on the photographs' classes, in per cent."""
    arch_kwargs = architecture(cfg) if interpolation else None
    frozen, _ = load_frozen(checkpoint, arch=cfg.model.backbone.arch, arch_kwargs=arch_kwargs)
    sets = [LabelledImages(data / "photos" / part, frozen.img_size, resize="squash") for part in ("train", "val")]
    (votes, labels), (queries, truth) = (extract_features(frozen.features(), images) for images in sets)
    return float(knn_accuracy(votes, labels, queries, truth, [20])[20])


def dino_views(dino: SimpleNamespace, cfg: Any) -> Any:
    """DINO's own augmentation with the study's sizes and scales."""
    options = cfg.train_dataloader.dataset
    augment = dino.main_dino.DataAugmentationDINO(
        tuple(options.global_scale), tuple(options.local_scale), options.num_local_crops
    )
    for transform in (augment.global_transfo1, augment.global_transfo2):
        transform.transforms[0].size = (options.global_size,) * 2
    augment.local_transfo.transforms[0].size = (options.local_size,) * 2
    return augment


class DinoRun:
    """A whole run of DINO's code under the study's recipe.

    Args:
        dino: from ``benchmarks.dino_step.dino_code``.
        cfg: the recipe.
        data: folder with ``photos``.
        seed: of weights, order and crops.
    """

    def __init__(self, dino: SimpleNamespace, cfg: Any, data: Path, seed: int) -> None:
        from torchvision.datasets import ImageFolder

        dino.utils.fix_random_seeds(seed)
        self.dino, self.cfg = dino, cfg
        images = ImageFolder(str(data / "photos" / "train"), transform=dino_views(dino, cfg))
        self.loader = DataLoader(images, cfg.train_dataloader.batch_size, shuffle=True, drop_last=True)
        vit = architecture(cfg)
        vit["img_size"] = [vit["img_size"]]
        head = dict(hidden_dim=cfg.model.head.hidden_dim, bottleneck_dim=cfg.model.head.bottleneck_dim)
        num_views = 2 + cfg.train_dataloader.dataset.num_local_crops
        self.step = DinoStep(dino, vit, num_views, cfg.model.head.out_dim, head, drop_path_rate=0.0)

    def seconds_per_step(self, steps: int = 8) -> float:
        """Processor time, after two steps of warming up; loading included."""
        batches = []
        start = 0.0
        for number, batch in enumerate(self.loader):
            if number == 2:
                start = time.process_time()
            self.step.epoch([batch])
            batches.append(batch)
            if number == steps + 1:
                break
        return (time.process_time() - start) / steps

    def train(self, epochs: int, checkpoint: Path) -> list[dict[str, float]]:
        """All epochs; after each the teacher goes to ``checkpoint``. Returns loss and processor time so far."""
        schedule, steps = self.cfg.train_cfg.schedule, len(self.loader)
        batch = self.cfg.train_dataloader.batch_size
        cosine = self.dino.utils.cosine_scheduler
        lr = cosine(
            schedule.base_lr * batch / schedule.base_batch,
            schedule.min_lr,
            epochs,
            steps,
            warmup_epochs=schedule.warmup_epochs,
        )
        decay = cosine(schedule.weight_decay, schedule.weight_decay_end, epochs, steps)
        momentum = cosine(schedule.teacher_momentum, 1, epochs, steps)
        temperatures = (schedule.warmup_teacher_temp, schedule.teacher_temp, schedule.warmup_teacher_temp_epochs)
        self.step.set_loss(*temperatures, epochs)
        history, spent = [], 0.0
        for epoch in range(epochs):
            start = time.process_time()
            loss = self.step.epoch(self.loader, epoch, epochs, list(lr), list(decay), list(momentum))
            spent += time.process_time() - start
            history.append({"epoch": epoch + 1, "loss": loss, "seconds": spent})
            print(f"dino: epoch {epoch + 1} of {epochs}, loss {loss:.3f}, {spent / 60:.1f} min", file=sys.stderr)
            weights = self.step.teacher.state_dict()
            write_atomically(checkpoint, lambda path, weights=weights: torch.save({"teacher": weights}, path))
        return history


def run_dino(checkout: Path, data: Path, minutes: float, seed: int, out: Path) -> dict[str, Any]:
    """DINO for so many minutes of processor time, and its k-NN."""
    cfg = study_config()
    with dino_code(checkout) as dino:
        per_step = DinoRun(dino, cfg, data, seed).seconds_per_step()
        run = DinoRun(dino, cfg, data, seed)
        epochs = max(int(minutes * 60 / (per_step * len(run.loader))), cfg.train_cfg.schedule.warmup_epochs + 1)
        history = run.train(epochs, out / "dino.pth")
    top1 = knn_top1(out / "dino.pth", data, cfg, interpolation="dino")
    result = {"top1": top1, "epochs": epochs, "seconds": history[-1]["seconds"], "history": history, "seed": seed}
    (out / "dino.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def run_mst(data: Path, epochs: int, seed: int, out: Path) -> dict[str, Any]:
    """``mst-pretrain`` in a process of its own; processor time of all of it, and k-NN of the teacher."""
    folder = out / f"mst_{epochs}_epochs"
    command = [
        *(sys.executable, "tools/pretrain.py", CONFIG, "--seed", str(seed), "--work-dir", str(folder)),
        *("--cfg-options", f"train_cfg.max_epochs={epochs}"),
    ]
    environment = {**os.environ, "MST_DATA_ROOT": str(data.resolve()), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(out / f"mst_{epochs}.log", "w") as log:
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    top1 = knn_top1(folder / "teacher.safetensors", data, study_config())
    result = {"top1": top1, "epochs": epochs, "seconds": seconds, "seed": seed, "command": command[1:]}
    (out / f"mst_{epochs}.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def run(
    quick: bool = False,
    dino: Path | None = None,
    data: Path | None = None,
    minutes: float = 40.0,
    mst_epochs: tuple[int, ...] = (5, 8, 12),
    seed: int = 0,
    out: Path | None = None,
) -> list[Row]:
    """One row for each length of MST's run."""
    if data is None:
        return [Row("time to quality", "", "MST", None, None, "min", None, None, note="not run: give --data FOLDER")]
    torch.set_num_threads(1)
    if quick:
        mst_epochs, dino = (3,), None
    with tempfile.TemporaryDirectory() as made:
        out = out or Path(made)
        out.mkdir(parents=True, exist_ok=True)
        peer = None if dino is None else run_dino(dino, data, minutes, seed, out)
        rows = []
        for epochs in mst_epochs:
            mst = run_mst(data, epochs, seed, out)
            note = f"MST: {mst['top1']:.1f} % after {epochs} epochs"
            name = f"MST, {epochs} epochs"
            if peer is None:
                rows.append(
                    alone("k-NN on photos, minutes", (name, [mst["seconds"]]), unit="min", scale=1 / 60, note=note)
                )
                continue
            ratio = peer["seconds"] / mst["seconds"]
            reached = mst["top1"] >= peer["top1"]
            note += f"; dino: {peer['top1']:.1f} % after {peer['epochs']}; {'reached' if reached else 'not reached'}"
            rows.append(
                Row(
                    "k-NN on photos, minutes of one core",
                    f"dino, {peer['epochs']} epochs",
                    name,
                    peer["seconds"] / 60,
                    mst["seconds"] / 60,
                    "min",
                    ratio,
                    (ratio, ratio),
                    3.0 if reached and not quick else None,
                    note,
                )
            )
    return rows
