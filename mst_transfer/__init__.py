"""Pre-training, and transfer to detection and segmentation with the MM libraries.

Importing this package installs ``mst_transfer.compat`` (see there) and sets ``GOMP_SPINCOUNT``: no model library is
imported. What ``mst`` does is here as functions, in one process: ``pretrain``, ``train``, ``predict``,
``load_backbone``, ``probe``, ``evaluate``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mst_transfer import compat

if TYPE_CHECKING:
    from torch import nn

    from mst_transfer.checkpoint import LoadReport
    from mst_transfer.engine.predict import predict
    from pretrain.run.from_folder import pretrain

__all__ = ["Trained", "evaluate", "load_backbone", "predict", "pretrain", "probe", "train"]
__version__ = "0.1.0"
_ELSEWHERE = {"predict": "mst_transfer.engine.predict", "pretrain": "pretrain.run.from_folder"}

# Threads of OpenMP that wait for work keep their core for 300,000 turns of a loop; the loaders' workers need it.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # read once, where torch is imported

compat.install()


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Trained(NamedTuple):
    """A head's run: its last checkpoint, its work dir, and the figures of its last weights, e.g. ``coco/bbox_mAP``."""

    checkpoint: Path
    work_dir: Path
    metrics: dict[str, float]


def train(config: str | Path, *, work_dir: str | Path | None = None, fresh: bool = False, **options: Any) -> Trained:
    """Trains a detector or segmentor, as ``mst train CONFIG`` does.

    Args:
        config: path, or name of a shipped config.
        work_dir: default: the config's, or ``work_dirs/<config's name>``.
        fresh: set an earlier run in the work dir aside instead of refusing to start.
        **options: ``seed``, ``resume``, ``coco``, ``cfg_options``, …: ``mst_transfer.engine.run.load_run_config``.

    Raises:
        FileNotFoundError, ValueError: config, data, checkpoint or work dir cannot be used.
        StoppedBySignal: by Ctrl-C or SIGTERM; a checkpoint was saved.
    """
    from mst_transfer.engine import run
    from mst_transfer.runs import stop
    from mst_transfer.runs.checkpoints import checkpoints_by_age

    cfg = run.load_run_config(str(config), work_dir=str(work_dir) if work_dir else None, **options)
    run.check_inputs(cfg, training=True)
    with stop.listening():  # Ctrl-C: the step is finished and a checkpoint saved
        written = run.run_training(cfg, fresh)
    return Trained(checkpoints_by_age(cfg.work_dir)[0], Path(cfg.work_dir), written["metrics"])


def load_backbone(
    checkpoint: str | Path, *, arch: str | None = None, role: str | None = "teacher", **options: Any
) -> tuple[nn.Module, LoadReport]:
    """Builds timm's model of a backbone file and loads it, completely or not at all.

    Args:
        checkpoint: file of any source, ``zoo://NAME``, ``timm://NAME``, or ``hf://ORG/REPO[/FILE][@REVISION]``.
        arch: timm's name; None: as the file says or shows.
        role: ``teacher`` or ``student``, where a file holds both.
        **options: of ``timm.create_model``, e.g. ``dynamic_img_size=True``.

    Raises:
        FileNotFoundError, ValueError: no such file, of another architecture, or of an unknown one.
    """
    import timm

    from mst_transfer import checkpoint as files

    file = files.find_backbone(checkpoint, role)
    found, shown = (arch, {}) if arch else files.architecture_of(file)
    model = timm.create_model(found, num_classes=0, **{**shown, **options})
    return model, files.load_backbone(model, file)


def probe(checkpoint: str | Path, data: str | Path, protocol: str = "knn", **options: Any) -> dict[str, Any]:
    """Measures frozen features on images in ``data/{train,val}/<class>/`` by DINO's protocols, ``knn`` or ``linear``.

    Args:
        **options: those of ``tools/eval_knn.py`` and ``eval_linear.py``, e.g. ``k=[20]``, ``arch=…``, ``cache=True``.

    Returns:
        ``top1`` in per cent (of ``knn`` by k), and what it was measured with.

    Raises:
        FileNotFoundError, ValueError: checkpoint, data or options cannot be used.
    """
    from mst_transfer.probes import main, protocols

    functions = {"knn": protocols.run_knn, "linear": protocols.run_linear}
    if protocol not in functions:
        raise ValueError(f"protocol={protocol!r} is not known; choose {' or '.join(functions)}")
    args = main.build_parser(f"eval_{protocol}").parse_args([str(checkpoint), str(data)])
    if unknown := options.keys() - vars(args):
        raise ValueError(f"{protocol} has no option {', '.join(sorted(unknown))}; it has {', '.join(vars(args))}")
    vars(args).update(options)
    return functions[protocol](args)


def evaluate(checkpoints: Sequence[str | Path], out: str | Path, **options: Any) -> dict[str, Any]:
    """Says what checkpoints are worth, as ``mst evaluate`` does: runs what is not done yet and writes the card.

    Args:
        checkpoints: ``PATH``, ``NAME=PATH``, ``zoo://NAME``, ``timm://NAME``, ``hf://ORG/REPO``, ``random`` or
            ``random:ARCH`` each.
        out: folder of the card.
        **options: those of ``mst evaluate``, e.g. ``on=["camvid"]``, ``labels=["10%"]``, ``tune=[]``.

    Returns:
        The content of ``card.json``.

    Raises:
        FileNotFoundError, ValueError: checkpoints, data or options cannot be used; a job failed: names it.
    """
    import json

    from mst_transfer.card.evaluate import evaluate as run
    from mst_transfer.cli.evaluate import build_parser

    args = build_parser().parse_args([*map(str, checkpoints), "--out", str(out)])
    if unknown := options.keys() - vars(args):
        raise ValueError(f"evaluate has no option {', '.join(sorted(unknown))}; it has {', '.join(vars(args))}")
    vars(args).update(options)
    run(args, f"mst_transfer.evaluate({list(map(str, checkpoints))}, {str(out)!r}, **{options})")
    card: dict[str, Any] = json.loads((Path(out) / "card.json").read_text(encoding="utf-8"))
    if failed := [job["id"] for job in card["jobs"] if job["status"] == "failed"]:
        raise ValueError(
            f"{len(failed)} jobs failed: {', '.join(failed)}. Next step: their logs, in {Path(out) / 'jobs'}"
        )
    return card
