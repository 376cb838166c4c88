"""The study: mask {none, random, attention} × decoder {off, on}, one block of six cells a seed: ``docs/study.md``.

    python -m benchmarks.study pretrain --data FOLDER [--seeds 0 1 2] [--cells dino mst] [--checkout CLONE]
    python -m benchmarks.study pretrain --data FOLDER --device cuda --at-once 6 --epochs 100 --minutes 8 --results GPU
    python -m benchmarks.study pretrain --data FOLDER --vary patch_8 num_8 --cells mst random_mask --results MAP
    python -m benchmarks.study evaluate --data FOLDER [--results GPU] [options of mst evaluate]
    python -m benchmarks.study table [--results GPU]

FOLDER holds ``photos/{train,val}/<class>/``, ``camvid/`` and ``coco_mini/``; to pre-train, ``photos/train`` will do, as
files or shards. ``pretrain`` leaves teachers (float16) and curves in ``docs/results/study``, or where ``--results``
says; it can be stopped at any time: started again, it resumes a run and skips what is there. ``evaluate`` writes one
card of all teachers that are there, and keeps its ``card.json`` beside them.
"""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mst_transfer.card.pretraining import read_scalars
from mst_transfer.card.statistics import Difference, difference_of, holm, sentence
from mst_transfer.cli.convert import main as convert
from mst_transfer.devices.processor import cpu_info
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.files.checksums import sha256_of
from mst_transfer.runs.launch import num_cores
from mst_transfer.runs.stop import SAVED

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "study"
CELLS = {  # config → mask, whether there is a decoder
    "dino": ("none", False),
    "decoder_only": ("none", True),
    "random_mask_only": ("random", False),
    "random_mask": ("random", True),
    "attention_mask_only": ("attention", False),
    "mst": ("attention", True),
}
CURVES = ("loss", "loss_dino", "loss_restoring", "teacher_entropy", "lr")
LABELS = ("10%", "100%")  # of the card
TWINS = (("mst", "random_mask"), ("attention_mask_only", "random_mask_only"))  # of one share of hidden patches
VARIED = ("patch_8", "num_8", "first_view")  # of the study's 36 patches, half of them hidden, in both global views


class Measured(NamedTuple):
    """What a figure was measured on."""

    task: str
    protocol: str
    labels: str
    metric: str

    def __str__(self) -> str:
        return f"{self.task}, {self.protocol}, {self.labels} labels, {self.metric}"


KNN = Measured("images", "knn", "100%", "top-1")
PRIMARY = {
    "decoder": Measured("coco_mini", "dense_linear", "100%", "mIoU"),
    "attention": KNN,
    "interaction": KNN,
}


def weights(contrast: str) -> NDArray[np.float64]:
    """Weight ``[C]`` of each cell in a contrast, in the order of ``CELLS``; their sum is 0."""
    masks, decoders = zip(*CELLS.values(), strict=True)
    with_decoder = np.where(decoders, 1.0, -1.0)
    attention = np.array([{"attention": 1.0, "random": -1.0, "none": 0.0}[mask] for mask in masks])
    return {"decoder": with_decoder / 3, "attention": attention / 2, "interaction": attention * with_decoder}[contrast]


def estimate(figures: NDArray[np.float64], weight: NDArray[np.float64], num_comparisons: int = 1) -> Difference:
    """A contrast of cells from figures ``[B, C]`` of B >= 2 blocks: value = block + cell + residual, by least squares.

    The variance of the residuals is pooled, with (B - 1) · (C - 1) degrees of freedom.
    """
    blocks, cells = figures.shape
    residual = figures - figures.mean(axis=1, keepdims=True) - figures.mean(axis=0) + figures.mean()
    freedom = (blocks - 1) * (cells - 1)
    error = float((np.square(residual).sum() / freedom * np.square(weight).sum() / blocks) ** 0.5)
    return difference_of(float(figures.mean(axis=0) @ weight), error, freedom, "seeds", num_comparisons)


def collect(rows: Sequence[Mapping[str, Any]]) -> dict[Measured, dict[str, dict[int, float]]]:
    """Measure → cell → block → per cent, of a card's rows. Random weights are the cell ``random`` of block 0."""
    found: dict[Measured, dict[str, dict[int, float]]] = {}
    for row in rows:
        cell, _, block = row["checkpoint"].rpartition("_seed")
        measured = found.setdefault(Measured(*(row[name] for name in Measured._fields)), {})
        measured.setdefault(cell or row["checkpoint"], {})[int(block) if cell else 0] = row["value"]
    return found


def whole_blocks(cells: Mapping[str, Mapping[int, float]]) -> list[int]:
    """Seeds of which every cell is there."""
    return sorted(set.intersection(*(set(cells.get(cell, ())) for cell in CELLS)))


def figure_table(found: Mapping[Measured, Mapping[str, Mapping[int, float]]]) -> str:
    """Mean over blocks, and each block's figure, of every cell."""
    lines = ["| mask | decoder | " + " | ".join(map(str, found)) + " |", "|---|---|" + "---|" * len(found)]
    for cell, (mask, decoder) in {"random": ("random weights", None), **CELLS}.items():
        texts = []
        for cells in found.values():
            figures = [cells[cell][block] for block in sorted(cells.get(cell, ()))]
            each = f" ({' / '.join(f'{figure:.1f}' for figure in figures)})" * (len(figures) > 1)
            texts.append(f"{np.mean(figures):.1f}{each}" if figures else "–")
        lines.append(f"| {mask} | {'' if decoder is None else 'on' if decoder else 'off'} | {' | '.join(texts)} |")
    return "\n".join(lines)


def contrast_table(found: Mapping[Measured, Mapping[str, Mapping[int, float]]]) -> str:
    """What each contrast shows, the primary ones after Holm's correction."""
    blocks = {measured: whole_blocks(cells) for measured, cells in found.items()}
    usable = {measured: seeds for measured, seeds in blocks.items() if len(seeds) > 1}
    if missing := sorted({str(measured) for measured in PRIMARY.values()} - set(map(str, usable))):
        return f"No contrasts: fewer than two whole blocks of {' and of '.join(missing)}."
    estimates = {}
    for measured, seeds in usable.items():
        figures = np.array([[found[measured][cell][seed] for cell in CELLS] for seed in seeds])
        estimates |= {(name, measured): estimate(figures, weights(name), len(PRIMARY)) for name in PRIMARY}
    adjusted = dict(zip(PRIMARY, holm([estimates[one].p_value for one in PRIMARY.items()]), strict=True))
    lines = ["| contrast | measure | blocks | what it shows |", "|---|---|---|---|"]
    for (name, measured), difference in estimates.items():
        primary = PRIMARY[name] == measured
        words = sentence(difference, adjusted[name] if primary else None)
        text = f"**{words}**" if primary else words
        lines.append(f"| {name} | {measured} | {len(usable[measured])} | {text} |")
    return "\n".join(lines)


def variation(cell: str, varied: Sequence[str]) -> list[str]:
    """Options of a cell with some of ``VARIED``; twins hide as many patches, the random mask on average."""
    patch, num = 8 if "patch_8" in varied else 16, 8 if "num_8" in varied else 2
    patches = (96 // patch) ** 2
    options = {
        "none": [],
        "attention": [f"model.masking.num={num}"],
        "random": [f"model.masking.p={patches // num / patches:.4g}"],
    }[CELLS[cell][0]]
    options += ["model.masking.views=[0]"] * ("first_view" in varied and CELLS[cell][0] != "none")
    return [*options, f"model.backbone.patch_size={patch}"]


def map_table(card: Mapping[str, Any]) -> str:
    """Attention − random of every pair of twins in a card, with its interval over images."""
    measures = (KNN, PRIMARY["decoder"])
    names = [one["name"] for one in card["checkpoints"]]
    found = {(one["checkpoint"], Measured(*(one[key] for key in Measured._fields))): one for one in card["rows"]}
    lines = ["| attention | random | " + " | ".join(map(str, measures)) + " |", "|---|---|" + "---|" * len(measures)]
    for name in sorted(names):
        cell = re.split(r"[+]|_seed", name)[0]
        for other in (name.replace(cell, twin, 1) for one, twin in TWINS if one == cell):
            texts = []
            for measured in measures if other in names else ():
                values = [found[one, measured]["value"] for one in (name, other)]
                texts.append(f"{values[0]:.1f} / {values[1]:.1f}: {_difference(card, name, other, measured)}")
            lines += [f"| {name} | {other} | {' | '.join(texts)} |"] if texts else []
    return "\n".join(lines)


def _difference(card: Mapping[str, Any], one: str, other: str, measured: Measured) -> str:
    for row in card["differences"]:
        if {row["a"], row["b"]} == {one, other} and Measured(*(row[key] for key in Measured._fields)) == measured:
            low, high = row["ci95"]
            value, low, high = (row["difference"], low, high) if row["a"] == one else (-row["difference"], -high, -low)
            return f"{value:+.1f} ({low:+.1f} … {high:+.1f})"
    return "–"


def curves(rows: Sequence[Mapping[str, Any]]) -> tuple[float, dict[str, list[float]]]:
    """Minutes that the steps took, and each curve's last value of every epoch."""
    minutes, before, last = 0.0, 0, dict[str, dict[int, float]]()
    for row in rows:
        minutes += row.get("time", 0.0) * (row["step"] - before) / 60
        before = row["step"]
        for name in CURVES:
            if name in row and "epoch" in row:
                last.setdefault(name, {})[row["epoch"]] = row[name]
    return minutes, {name: [of_epoch[epoch] for epoch in sorted(of_epoch)] for name, of_epoch in last.items()}


def pretrain(args: argparse.Namespace) -> int:
    """Every cell that is not there yet, seed by seed; the exit status of the first that did not end well."""
    words = ["git", "-C", str(args.checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True).stdout.strip()  # a copy without git has none
    known = dict(commit=commit, processor=cpu_info("model name"))
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print("--device cuda: torch sees no GPU. Next step: --device cpu", file=sys.stderr)
            return 2
        known["device"] = torch.cuda.get_device_name()
    args.results.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    cells = [(seed, cell) for seed in args.seeds for cell in args.cells]
    with ThreadPoolExecutor(args.at_once) as pool:
        return next(filter(None, pool.map(partial(pretrain_cell, args, known, until), cells)), 0)


def pretrain_cell(args: argparse.Namespace, known: Mapping[str, Any], until: float, one: tuple[int, str]) -> int:
    """One pre-training of a seed and a cell, unless its teacher is there; the exit status.

    Args:
        args: of the command line.
        known: of the run, for its file.
        until: ``time.monotonic()`` at which it is told to save and stop.
        one: seed and cell.
    """
    seed, cell = one
    name = "+".join([cell, *args.vary]) + f"_seed{seed}"
    teacher, folder = args.results / f"{name}.safetensors", (args.out / args.results.name / name).resolve()
    environment = {**os.environ, "MST_DATA_ROOT": str(args.data.resolve()), "PYTHONPATH": str(args.checkout.resolve())}
    cores = max(1, num_cores() // args.at_once)
    options = [f"train_cfg.max_epochs={args.epochs}"] * bool(args.epochs)
    options += variation(cell, args.vary) if args.vary else []
    of_machine: list[str] = []  # options that change no figure
    if args.device == "cuda":  # a small net waits for its crops, and would wait for the compiler
        of_machine += [f"train_dataloader.num_workers={cores}", "model.backbone.compile_blocks=False"]
    else:
        environment["CUDA_VISIBLE_DEVICES"] = ""
        environment.setdefault("OMP_NUM_THREADS", str(cores))
    words = ["tools/pretrain.py", f"pretrain/configs/study/{cell}.py", "--seed", str(seed)]
    shown = [*words, *["--cfg-options", *options] * bool(options), "--work-dir", "OUT", "--resume"]
    words += ["--cfg-options", *options, *of_machine] * bool(options + of_machine)
    known = dict(method=cell, seed=seed, command=f"python {' '.join(shown)}", **known)
    if (written := teacher.with_suffix(".json")).is_file():
        there = json.loads(written.read_text(encoding="utf-8"))
        same = all(there.get(name) == known.get(name) for name in ("command", "device"))
        if not same:
            made = there.get("device", "a CPU")
            print(f"{teacher} was made by {there['command']} on {made}. Next step: other --results", file=sys.stderr)
        return 0 if same else 2
    if time.monotonic() > until:
        return SAVED
    print(f"{name}: {folder}/log.txt", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "a") as log:
        command = [sys.executable, *words, "--work-dir", str(folder), "--resume"]
        run = subprocess.Popen(command, cwd=args.checkout, env=environment, stdout=log, stderr=log)
    try:
        status = run.wait(None if math.isinf(until) else until - time.monotonic())
    except subprocess.TimeoutExpired:
        run.terminate()
        status = run.wait() and SAVED
    print(f"{name}: {'done' if not status else f'status {status}, see its log'}", flush=True)
    if status:
        return status
    if convert(
        [f"{folder}/teacher.safetensors", "--to", "mst", "--dtype", "float16", "-o", str(teacher), "--overwrite"]
    ):
        return 1
    minutes, last = curves(read_scalars(folder))
    content = dict(known, threads=environment.get("OMP_NUM_THREADS"), at_once=args.at_once, minutes=round(minutes, 1))
    content |= dict(sha256=sha256_of(teacher), last_of_each_epoch=last)
    write_text_atomically(written, json.dumps(content, indent=1) + "\n")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """One card of all teachers that are there."""
    out = args.out / args.results.name / "card"
    card, before = out / "card.json", out / "card.json.before"
    if card.is_file():  # of other teachers, maybe: a dry run writes none
        card.replace(before)
    teachers = [f"{path.stem}={path}" for path in sorted(args.results.glob("*_seed*.safetensors"))]
    words = ["evaluate", *teachers, "random", "--on", "coco_mini", "camvid", "--images", str(args.data / "photos")]
    words += ["--labels", *LABELS, "--seeds", *map(str, args.seeds), "--out", str(out), *args.others]
    environment = {**os.environ, "MST_DATA_ROOT": str(args.data.resolve())}
    run = subprocess.run([sys.executable, "-m", "mst_transfer.cli.main", *words], cwd=ROOT, env=environment)
    if not run.returncode and card.is_file():
        shutil.copy(card, args.results / "card.json")
    return run.returncode


def table(args: argparse.Namespace) -> int:
    """Markdown, from the card of the results."""
    card = args.results / "card.json"
    if not card.is_file():
        print(f"there is no {card} yet. Next step: python -m benchmarks.study evaluate", file=sys.stderr)
        return 1
    content = json.loads(card.read_text(encoding="utf-8"))
    if any("+" in one["name"] for one in content["checkpoints"]):
        print(map_table(content))
        return 0
    found = collect(content["rows"])
    print(figure_table(found), contrast_table(found), sep="\n\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("pretrain", "evaluate", "table"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=ROOT / "work_dirs", help="runs and card, below the results' name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of pre-trainings, or of probes")
    parser.add_argument("--cells", nargs="+", choices=tuple(CELLS), default=list(CELLS))
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose code pre-trains (default: this one)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="teachers and curves (docs/results/study)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="that pre-trains")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="pre-trainings side by side (1)")
    parser.add_argument("--epochs", type=int, help="instead of the config's 25; name other --results")
    parser.add_argument("--vary", nargs="+", choices=VARIED, default=[], help="of the cells' masks; name --results")
    parser.add_argument("--minutes", type=float, default=math.inf, help="then save, stop, and end with status 75")
    args, args.others = parser.parse_known_args(argv)
    if args.others and args.action != "evaluate":
        parser.error(f"unknown options {' '.join(args.others)}")
    if (args.epochs or args.vary or args.device == "cuda") and args.results == RESULTS:
        parser.error("--epochs, --vary and --device cuda make other figures: give them a folder, --results FOLDER")
    return {"pretrain": pretrain, "evaluate": evaluate, "table": table}[args.action](args)


if __name__ == "__main__":
    sys.exit(main())
