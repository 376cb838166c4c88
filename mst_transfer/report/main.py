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
from mst_transfer.report.collect import TASKS, Missing, Picture, Run, collect
from mst_transfer.report.curves import draw_panels, finetune_panels, pretrain_panels
from mst_transfer.report.page import build_page
from mst_transfer.report.panels import draw_predictions
from mst_transfer.report.predictions import Prediction, predict
from mst_transfer.report.table import as_markdown, build_table

MIN_SCORE = 0.3
NUM_IMAGES = 5
# Entries of a config that say nothing of how a run trains.
PLACES = ("work_dir", "experiment_name", "resume", "load_from", "launcher", BEGINNING)


def write_report(
    out: str | Path, with_predictions: bool = True, trust_config: bool = False
) -> tuple[Path, str, list[Missing]]:
    """Write ``out/report.html``, its pictures under ``out/report/``.

    Args:
        out: folder of the runs, see :mod:`mst_transfer.report.collect`.
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
    drawn = {"pretrain": [*collected.pictures, *_pretrain_curves(collected.of("pretrain"), folder)]}
    for task in TASKS:
        runs, drawn[task] = collected.of(task), []
        if with_predictions:
            with nullcontext() if trust_config else registered_types_only():
                drawn[task] += _predictions(task, runs, folder, collected.missing)
        drawn[task] += _finetune_curves(task, runs, folder)
    table = build_table(collected)
    path = collected.out / "report.html"
    write_text_atomically(path, build_page(collected, table, drawn))
    return path, as_markdown(table), collected.missing


def _pretrain_curves(runs: list[Run], folder: Path) -> list[Picture]:
    pictures = []
    for run in runs:
        head = ((run.config or {}).get("model") or {}).get("head") or {}
        if panels := pretrain_panels(run.scalars, head.get("out_dim")):
            draw_panels(panels, folder / "pretrain_curves.png")
            caption = "Every logged step. ln K is the entropy of a teacher that says the same of all K outputs."
            pictures.append(Picture(folder / "pretrain_curves.png", "Pre-training curves", caption))
    return pictures


def _finetune_curves(task: str, runs: list[Run], folder: Path) -> list[Picture]:
    panels, path = finetune_panels(task, runs), folder / f"{task}_curves.png"
    if not panels:
        return []
    draw_panels(panels, path)
    known = [run for run in runs if run.config is not None]
    if len(known) < 2:
        caption = "Fewer than two runs whose settings are known: nothing is compared."
    elif differing := differing_settings(known):
        caption = f"Careful: the runs differ in more than the backbone's weights: {', '.join(differing)}."
    else:
        caption = "The runs have the same data, schedule and seed; only the weights of the backbone differ."
    return [Picture(path, "Fine-tuning curves", caption)]


def differing_settings(runs: list[Run]) -> list[str]:
    """Top-level config entries, and the seed, in which runs differ; where the backbone starts from is left out."""
    settings = []
    for run in runs:
        cfg = {name: value for name, value in run.config.to_dict().items() if name not in PLACES}
        model = cfg.get("model", {})
        backbone = dict(model.get("backbone") or {}, checkpoint=None, init_cfg=None)
        settings.append({**cfg, "model": {**model, "backbone": backbone}, "seed": run.results.get("seed")})
    names = sorted({name for each in settings for name in each})
    return [name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)]


def _predictions(task: str, runs: list[Run], folder: Path, missing: list[Missing]) -> list[Picture]:
    """Predictions of the runs that can predict; why another cannot goes to ``missing``."""
    by_start: dict[str, list[Prediction]] = {}
    classes: tuple[str, ...] = ()
    for run in runs:
        if run.config is None or run.checkpoint is None:
            continue
        try:
            classes, by_start[run.label] = predict(run, NUM_IMAGES, MIN_SCORE)
        except (ValueError, RuntimeError, OSError, AttributeError, LookupError, TypeError) as error:
            reason = f"no predictions of {run.label} ({type(error).__name__}: {error})"
            missing.append(Missing(run.checkpoint, f"mst train CONFIG --work-dir {run.folder} --fresh", reason))
    if not by_start:
        return []
    path = folder / f"{task}_predictions.png"
    draw_predictions(classes, by_start, path)
    caption = "Validation images, evenly spaced and not chosen."
    if task == "det":
        caption += f" Boxes and masks with a score of at least {MIN_SCORE}; scores stand behind the class, in %."
    return [Picture(path, "Predictions beside the truth", caption)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mst report``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="mst report",
        description="Write OUT/report.html from the runs under OUT, and print the table of results.",
    )
    parser.add_argument(
        "out", metavar="OUT", help="folder with pretrain/, det_mst/, det_random/, seg_mst/, seg_random/"
    )
    parser.add_argument("--no-predictions", action="store_true", help="do not run the trained heads")
    parser.add_argument(
        "--trust-config", action="store_true", help="run the .py configs of the runs, instead of reading saved ones"
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if anything is not there")
    args = parser.parse_args(argv)
    path, table, missing = write_report(args.out, not args.no_predictions, args.trust_config)
    print(table)
    for item in missing:
        print(f"mst report: {item}", file=sys.stderr)
    print(f"\nreport: {path}")
    return 1 if missing and args.strict else 0
