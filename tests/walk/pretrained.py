"""Backbone files of the recipes of pre-training, each made once a walk by its own recipe with a narrow net."""

import json
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from lives import ROOT, Life, is_published, run
from mmengine.config import Config

STOPPED = 75


def backbone_for(recipe: Any, folder: Path) -> None:
    """Pre-trains what a transfer recipe starts from, where its config looks for it."""
    checkpoint = recipe.model.backbone.checkpoint
    if checkpoint is None or is_published(checkpoint):
        return
    words = Path(checkpoint).parts  # work_dirs, [study,] name, [seed_0,] teacher.safetensors
    name = "study/mst" if words[1] == "study" else words[1]
    life = pretrained(f"pretrain/configs/{name}.py", folder)
    target = folder / checkpoint
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_file():
        target.write_bytes((life.work_dir / "teacher.safetensors").read_bytes())


def pretrained(name: str, folder: Path) -> Life:
    """The life of a pre-training recipe up to its resumed run, gone through by the first process that needs it."""
    life = Life(name, folder / "pretraining")
    record = life.folder / f"{life.stem}.json"
    with FileLock(f"{record}.lock"):
        if not record.is_file():
            live(life)
            record.write_text(json.dumps(life.stages))
    life.stages = json.loads(record.read_text())
    return life


def live(life: Life) -> None:
    """Check, two steps, stop by a signal (known to all processes a step later), resume and stop again."""
    recipe = Config.fromfile(ROOT / life.name)
    epoch = 4 if "KNNHook" in str(recipe.custom_hooks) else 0  # its hook comes after an epoch
    changes: dict[str, Any] = dict(model=dict(init_from=_beginning(recipe, life)))
    config = life.config(**changes)
    assert run("check", config) == 0
    life.done("check")
    quick = ["train_dataloader.batch_size=8", "train_dataloader.num_workers=2", "train_dataloader.prefetch_factor=2"]
    words = [life.config(**changes, custom_hooks=_stopping(recipe, 1 + epoch)), "--work-dir", life.work_dir]
    assert run("pretrain", *words, "--cfg-options", *quick) == STOPPED
    first = _steps(life)
    assert first == 2 + epoch
    life.done("train")
    words[0] = life.config(**changes, custom_hooks=_stopping(recipe, 1))
    assert run("pretrain", *words, "--resume", "--cfg-options", *quick) == STOPPED
    assert _steps(life) == first + 2
    life.done("resume")


def _stopping(recipe: Config, steps: int) -> list[dict]:
    return [*(dict(hook) for hook in recipe.custom_hooks), dict(type="StopAfterHook", steps=steps)]


def _steps(life: Life) -> int:
    """Of the newest checkpoint."""
    newest = max(life.work_dir.glob("*.pth"), key=lambda path: path.stat().st_mtime_ns)
    return int(torch.load(newest, weights_only=True)["meta"]["iter"])


def _beginning(recipe: Config, life: Life) -> str | None:
    """For recipes that continue: the file of the one that they are made for."""
    if not recipe.model.get("init_from"):
        return None
    first = pretrained("pretrain/configs/mst_vit_small_16_imagenet_100e.py", life.folder.parent)
    return str(first.work_dir / "teacher.safetensors")
