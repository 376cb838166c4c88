"""``results.json``: what a run was, where it ran and what it measured."""

import datetime
import json
import math
import os
import platform
import shlex
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mst_transfer.compat.mm_lines import MM_NAMES
from mst_transfer.configs.paths import DATA_ROOT_VARIABLE
from mst_transfer.devices.processor import cpu_info
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.runs.launch import num_cores

FILE_NAME = "results.json"
BEGINNING = "_backbone_checkpoint"  # entry of the config of a resumed run: what its backbone once started from
POSITIONALS = {"train.py": 1, "test.py": 2}  # words before the launchers' number of GPUs
TASKS = {"mmdet": "det", "mmseg": "seg"}
REPORTED_PACKAGES = ("torch", "torchvision", "timm", "mmcv-lite", "mmcv", *MM_NAMES)
# Entries of the message hub. coco_*: of mst_transfer.CocoMetric; unreadable_images: see engine.image_checks
OF_HOOKS = ("coco_backend", "coco_images", "unreadable_images")


def package_versions() -> dict[str, str]:
    """Version of Python, of this package and of each library that a result depends on, where installed."""
    import mst_transfer

    versions = {"python": platform.python_version(), "mst-transfer": mst_transfer.__version__}
    for name in REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def hardware(world_size: int = 1) -> str:
    """One line like ``2 × NVIDIA H100`` or ``CPU, 2 cores, AMD EPYC 7B13``."""
    import torch

    if torch.cuda.is_available():
        return f"{world_size} × {torch.cuda.get_device_name()}"
    name = cpu_info("model name") or platform.processor() or platform.machine()
    processes = f", {world_size} processes" if world_size > 1 else ""
    return f"CPU, {num_cores()} cores{processes}, {name}"


def backbone_checkpoint(cfg: Any) -> str:
    """The file that a config's backbone starts from, or ``random``; of a resumed run, that of its beginning."""
    if cfg.get("resume") and cfg.get(BEGINNING):
        return str(cfg[BEGINNING])
    backbone = cfg.model.get("backbone") or {}
    init_cfg = backbone.get("init_cfg") or {}
    init_cfgs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    files = [one.get("checkpoint") for one in (backbone, *init_cfgs)] + [backbone.get("pretrained")]
    return next((str(file) for file in files if file), "random")


def command(world_size: int = 1) -> str:
    """The command of this process as one would type it again, with the data root that it found its data under.

    If the launchers of ``tools/`` started ``world_size`` processes on this node, the command is theirs.
    """
    program, *words = sys.argv
    script = Path(program)
    start, given = ["mst" if script.name == "main.py" else script.name], POSITIONALS.get(script.name)
    if script.parent.name == "tools":
        start = ["python", f"tools/{script.name}"]
        on_one_node = os.environ.get("LOCAL_WORLD_SIZE") == str(world_size)
        if given and on_one_node and words[-2:] == ["--launcher", "pytorch"] and not words[0].startswith("-"):
            words = [*words[:given], str(world_size), *words[given:-2]]
            start = ["bash", f"tools/dist_{script.stem}.sh"]
    elif "--gpus" in words and words[-2:] == ["--launcher", "pytorch"]:
        words = words[:-2]
    root = os.environ.get(DATA_ROOT_VARIABLE)
    variable = f"{DATA_ROOT_VARIABLE}={shlex.quote(root)} " if root else ""
    return variable + shlex.join([*start, *words])


def scalar_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers among an evaluator's metrics."""
    numbers = {}
    for name, value in metrics.items():
        with suppress(TypeError, ValueError):
            numbers[name] = float(value)
    return numbers


def write_results(
    runner: Any, cfg: Any, metrics: dict[str, float], mode: str, seconds: float, **extra: Any
) -> dict[str, Any]:
    """Writes the main process's ``results.json`` into the work dir; its content, empty in other processes.

    Args:
        runner: Of the run that has ended.
        cfg: Its config, as it was before it was augmented.
        metrics: Metric name → value; what is not a number becomes None, for JSON has no NaN.
        mode: ``train`` or ``test``.
        seconds: Duration of the run, with what was before it was resumed.
        **extra: Further entries.
    """
    if runner.rank != 0:
        return {}
    resumed = bool(cfg.get("resume"))
    written = {
        "task": TASKS.get(cfg.get("default_scope"), cfg.get("default_scope")),
        "mode": mode,
        "config": str(cfg.filename) if cfg.filename else None,
        "command": command(runner.world_size),
        "world_size": runner.world_size,
        "resumed": resumed,
        "seed": runner.seed,
        "checkpoint": backbone_checkpoint(cfg),
        "load_from": None if resumed else cfg.get("load_from"),
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        "minutes": round(seconds / 60, 3),
        "hardware": hardware(runner.world_size),
        "versions": package_versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **{name: info for name in OF_HOOKS if (info := runner.message_hub.get_info(name))},
        **extra,
    }
    path = Path(runner.work_dir) / FILE_NAME
    write_text_atomically(path, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    runner.logger.info(f"results: {path}")
    return written
