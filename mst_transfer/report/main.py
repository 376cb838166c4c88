"""Command line of the report: collect, draw, write ``OUT/report.html``, print the table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mst_transfer.configs.saved import registered_types_only
from mst_transfer.engine.results import BEGINNING
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.report.collect import Missing, Picture, Run, collect
from mst_transfer.report.curves import draw_finetune_curves, draw_pretrain_curves
from mst_transfer.report.page import build_page
from mst_transfer.report.panels import draw_predictions
from mst_transfer.report.predictions import predict
from mst_transfer.report.table import as_markdown, build_table

MIN_SCORE = 0.3


def write_report(
    out: str | Path,
    title: str | None = None,
    num_images: int = 5,
    with_predictions: bool = True,
    trust_config: bool = False,
) -> tuple[Path, str, list[Missing]]:
    """Write ``out/report.html``, its pictures under ``out/report/``.

    Args:
        out: folder of the runs, see :mod:`mst_transfer.report.collect`.
        title: heading; "MST: from photos to <tasks>" if None.
        num_images: validation images shown for each task.
        with_predictions: False leaves out running the heads.
        trust_config: run the runs' ``.py`` configs, and import what they name; else what they saved as data is read,
            and what is registered is built.

    Returns:
        The page, the table in Markdown, and what was not there.

    Raises:
        FileNotFoundError: there is nothing to report under ``out``.
    """
    collected = collect(out, trust_config)
    folder = collected.out / "report"
    folder.mkdir(exist_ok=True)
    drawn: dict[str, list[Picture]] = {"pretrain": _pretrain_pictures(collected.pretrain, folder)}
    for task, runs in collected.runs.items():
        drawn[task] = []
        if with_predictions:
            with nullcontext() if trust_config else registered_types_only():
                drawn[task] += _prediction_pictures(task, runs, folder, num_images, collected.missing)
        drawn[task] += _curve_pictures(task, runs, folder)
    table = build_table(collected)
    page = build_page(title or "MST: from photos to mAP and mIoU", collected, table, drawn)
    path = collected.out / "report.html"
    write_text_atomically(path, page)
    return path, as_markdown(table), collected.missing


def _pretrain_pictures(run: Run | None, folder: Path) -> list[Picture]:
    if run is None:
        return []
    path = folder / "pretrain_curves.png"
    head = ((run.config or {}).get("model") or {}).get("head") or {}
    out_dim = int(head.get("out_dim") or 0) or None
    if not draw_pretrain_curves(run.scalars, out_dim, path):
        return []
    caption = "Every logged step; losses are means over the steps of the log's window, up to 20 by default."
    if out_dim:
        caption += f" The dashed line is the entropy of a teacher that says the same of all {out_dim:,} outputs."
    return [Picture(path, "Pre-training curves", caption)]


def _curve_pictures(task: str, runs: list[Run], folder: Path) -> list[Picture]:
    path = folder / f"{task}_curves.png"
    if not draw_finetune_curves(task, runs, path):
        return []
    return [Picture(path, "Fine-tuning curves", _comparison(runs))]


def _comparison(runs: list[Run]) -> str:
    """Says what the runs of a task differ in, as their configs and seeds show."""
    configs = [run for run in runs if run.config is not None]
    if len(configs) < 2:
        return "One start only: nothing to compare it with."
    differing = differing_settings(configs)
    if differing:
        return f"Careful: the runs differ in more than the backbone's weights: {', '.join(differing)}."
    return "The runs have the same data, schedule and seed; only the weights of the backbone differ."


def differing_settings(runs: list[Run]) -> list[str]:
    """Top-level config entries, and the seed, in which runs differ; where the backbone starts from is left out."""
    settings = []
    for run in runs:
        cfg = run.config.to_dict()
        for name in ("work_dir", "experiment_name", "resume", "load_from", "launcher"):
            cfg.pop(name, None)
        cfg.pop(BEGINNING, None)
        backbone = dict(cfg.get("model", {}).get("backbone") or {})
        for name in ("checkpoint", "init_cfg"):
            backbone.pop(name, None)
        cfg["model"] = {**cfg.get("model", {}), "backbone": backbone}
        settings.append({**cfg, "seed": run.results.get("seed")})
    names = sorted({name for each in settings for name in each})
    return [name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)]


def _prediction_pictures(
    task: str, runs: list[Run], folder: Path, num_images: int, missing: list[Missing]
) -> list[Picture]:
    """Predictions of the runs that can predict; why another cannot goes to ``missing``."""
    by_start = {}
    for run in runs:
        if run.config is None or run.checkpoint is None:
            continue
        try:
            by_start[run.label] = predict(run, num_images, MIN_SCORE)
        except (ValueError, RuntimeError, OSError, AttributeError, LookupError, TypeError) as error:
            reason = f"no predictions of {run.label} ({type(error).__name__}: {error})"
            missing.append(Missing(run.checkpoint, f"mst train CONFIG --work-dir {run.folder} --fresh", reason))
    if not by_start:
        return []
    path = folder / f"{task}_predictions.png"
    draw_predictions(task, by_start, path)
    shown = len(next(iter(by_start.values())).items)
    caption = f"{shown} validation images, evenly spaced and not chosen."
    if task == "det":
        caption += f" Boxes and masks with a score of at least {MIN_SCORE}; scores stand behind the class, in %."
    return [Picture(path, "Predictions beside the truth", caption)]


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``mst report``."""
    parser = argparse.ArgumentParser(
        prog="mst report",
        description="Write OUT/report.html from the runs under OUT, and print the table of results.",
    )
    parser.add_argument(
        "out", metavar="OUT", help="folder with pretrain/, det_mst/, det_random/, seg_mst/, seg_random/"
    )
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--num-images", type=int, default=5, help="validation images shown for each task (5)")
    parser.add_argument("--no-predictions", action="store_true", help="do not run the trained heads")
    parser.add_argument(
        "--trust-config", action="store_true", help="run the .py configs of the runs, instead of reading saved ones"
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if anything is not there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mst report``; returns the exit status."""
    args = build_parser().parse_args(argv)
    if args.num_images < 1:
        print(f"mst report: --num-images must be at least 1, got {args.num_images}", file=sys.stderr)
        return 1
    try:
        path, table, missing = write_report(
            args.out, args.title, args.num_images, not args.no_predictions, args.trust_config
        )
    except FileNotFoundError as error:
        print(f"mst report: {error}", file=sys.stderr)
        return 1
    print(table)
    for item in missing:
        print(f"mst report: {item}", file=sys.stderr)
    print(f"\nreport: {path}")
    return 1 if missing and args.strict else 0
