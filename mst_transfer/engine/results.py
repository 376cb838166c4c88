"""``results.json``: what a run was, where it ran and what it measured."""

import datetime
import json
import math
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mst_transfer.configs.paths import DATA_ROOT_VARIABLE
from mst_transfer.devices.processor import cpu_info
from mst_transfer.files.atomic_files import write_atomically
from mst_transfer.runs.launch import num_cores

FILE_NAME = "results.json"
BEGINNING = "_backbone_checkpoint"  # entry of the config of a resumed run: what its backbone once started from
RESUMED_BACKBONE = "the backbone's weights are those of"  # begins a log line of a resumed run; the report reads it
POSITIONALS = {"train.py": 1, "test.py": 2}  # words before the launchers' number of GPUs
TASKS = {"mmdet": "det", "mmseg": "seg"}
REPORTED_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "mmengine",
    "mmcv-lite",
    "mmcv",
    "mmdet",
    "mmsegmentation",
)


def package_versions() -> dict[str, str]:
    """Version of Python, of this package and of each library that a result depends on, where installed."""
    import mst_transfer

    versions = {"python": platform.python_version(), "mst-transfer": mst_transfer.__version__}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def hardware(world_size: int = 1) -> str:
    """One line like ``2 × NVIDIA H100`` or ``CPU, 2 cores, AMD EPYC 7B13``."""
    import torch

    if torch.cuda.is_available():
        return f"{world_size} × {torch.cuda.get_device_name()}"
    processes = f", {world_size} processes" if world_size > 1 else ""
    return (
        f"CPU, {num_cores()} cores{processes}, {cpu_info('model name') or platform.processor() or platform.machine()}"
    )


def backbone_checkpoint(cfg: Any) -> str:
    """The file that a config's backbone starts from, or ``random``; of a resumed run, that of its beginning."""
    if cfg.get("resume") and cfg.get(BEGINNING):
        return str(cfg[BEGINNING])
    backbone = cfg.model.get("backbone") or {}
    init_cfg = backbone.get("init_cfg") or {}
    init_cfgs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    files = [
        backbone.get("checkpoint"),
        *(one.get("checkpoint") for one in init_cfgs),
        backbone.get("pretrained"),
    ]
    return next((str(file) for file in files if file), "random")


def command(world_size: int = 1) -> str:
    """The command of this process as one would type it again, with the data root that it found its data under.

    Args:
        world_size: Number of processes. If the launchers of ``tools/`` started several on this node, the command is
            theirs.
    """
    program, *words = sys.argv
    script = Path(program)
    if script.parent.name == "tools":
        given = POSITIONALS.get(script.name)
        on_one_node = os.environ.get("LOCAL_WORLD_SIZE") == str(world_size)
        if given and on_one_node and words[-2:] == ["--launcher", "pytorch"] and not words[0].startswith("-"):
            words = [*words[:given], str(world_size), *words[given:-2]]
            start = ["bash", f"tools/dist_{script.stem}.sh"]
        else:
            start = ["python", f"tools/{script.name}"]
    elif script.parent.name == "cli" and script.stem in ("train", "test"):
        start = ["mst", script.stem]
    else:
        start = ["mst" if script.name == "main.py" else script.name]
    root = os.environ.get(DATA_ROOT_VARIABLE)
    variable = f"{DATA_ROOT_VARIABLE}={shlex.quote(root)} " if root else ""
    return variable + shlex.join([*start, *words])


def scalar_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers among an evaluator's metrics."""
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers


def write_results(
    work_dir: str | os.PathLike,
    cfg: Any,
    metrics: dict[str, float],
    *,
    mode: str,
    seconds: float,
    seed: int | None,
    world_size: int,
    **extra: Any,
) -> dict[str, Any]:
    """Writes ``<work_dir>/results.json`` and returns its content.

    Args:
        work_dir: The run's folder.
        cfg: Its config.
        metrics: Metric name → value; what is not a number becomes None, for JSON has no NaN.
        mode: ``train`` or ``test``.
        seconds: Duration of the run, with what was before it was resumed.
        seed: Seed of the run.
        world_size: Number of processes.
        **extra: Further entries.
    """
    results = {
        "task": TASKS.get(cfg.get("default_scope"), cfg.get("default_scope")),
        "mode": mode,
        "config": str(cfg.filename) if cfg.filename else None,
        "command": command(world_size),
        "world_size": world_size,
        "resumed": bool(cfg.get("resume")),
        "seed": seed,
        "checkpoint": backbone_checkpoint(cfg),
        "load_from": None if cfg.get("resume") else cfg.get("load_from"),
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        "minutes": round(seconds / 60, 3),
        "hardware": hardware(world_size),
        "versions": package_versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **extra,
    }
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    write_atomically(Path(work_dir) / FILE_NAME, lambda path: _write_text(path, text))
    return results


def _write_text(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")
