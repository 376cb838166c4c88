"""``eval_knn`` and ``eval_linear``: what a checkpoint's frozen features are worth on labelled images."""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mst_transfer.runs import launch
from mst_transfer.runs.options import whole_number
from mst_transfer.runs.stop import run_to_end

DTYPES = ("float32", "bfloat16", "float16")
LINEAR_LRS = (0.001, 0.01, 0.1, 1.0)


def _positive_number(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be positive")
    return float(text)


def _file(text: str) -> Path:
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file, e.g. {Path(text) / 'result.json'}")
    return Path(text)


def build_parser(program: str) -> argparse.ArgumentParser:
    """Options; ``program`` is ``eval_knn`` or ``eval_linear``."""
    parser = argparse.ArgumentParser(
        prog=program, description=f"{program.removeprefix('eval_')} protocol of DINO on frozen features."
    )
    parser.add_argument("checkpoint", help="backbone file: ours, DINO's, timm's, …; 'random' for untrained weights")
    parser.add_argument("data", type=Path, help="folder with train/<class>/* and val/<class>/*")
    parser.add_argument("--role", default="teacher", choices=("teacher", "student"))
    parser.add_argument("--arch", help="timm architecture, for files that do not name it")
    parser.add_argument("--arch-options", nargs="+", default=[], metavar="KEY=VALUE", help="its options")
    for name in ("mean", "std"):
        words = f"RGB {name} of the normalisation, 0 to 1 (default: the checkpoint's as far as known, else ImageNet's)"
        parser.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help=words)
    parser.add_argument("--size", type=whole_number(1), help="side of the views in pixels (default: the checkpoint's)")
    parser.add_argument("--resize", default="crop", choices=("crop", "squash"), help="see docs/evaluation.md")
    parser.add_argument("--batch-size", type=whole_number(1), default=256, help="of one process (default 256)")
    parser.add_argument("--num-workers", type=whole_number(0), default=0, help="loading processes of each one")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--seed", type=whole_number(0), default=0)
    parser.add_argument("--out", type=_file, help="also write the result to this JSON file")
    parser.add_argument("--launcher", choices=launch.LAUNCHERS, default="none")
    if program == "eval_knn":
        parser.add_argument("--k", type=whole_number(1), nargs="+", default=[10, 20, 100, 200])
        parser.add_argument("--temperature", type=_positive_number, default=0.07)
    else:
        parser.add_argument(
            "--blocks", type=whole_number(1), help="class tokens of the last N blocks (default: 4; Swin: 1)"
        )
        parser.add_argument("--average-patches", action="store_true", help="and the mean patch token (ViT-B)")
        parser.add_argument("--epochs", type=whole_number(1), default=100)
        parser.add_argument("--lr", type=_positive_number, nargs="+", default=LINEAR_LRS, help="for a batch of 256")
        parser.add_argument("--held-out", type=float, default=0.1, help="share of train that chooses the lr")
        parser.add_argument(
            "--cache",
            action="store_true",
            help="central views only, features computed once: minutes instead of hours, a little less accurate",
        )
    return parser


def main(program: str, argv: Sequence[str] | None = None) -> int:
    """Run ``eval_knn`` or ``eval_linear``; the exit status."""
    args = build_parser(program).parse_args(argv)
    from mst_transfer.probes.protocols import run_knn, run_linear

    def measure() -> dict[str, Any]:
        launch.init_distributed(args.launcher)
        return (run_knn if program == "eval_knn" else run_linear)(args)

    start = time.monotonic()
    status, result = run_to_end(program, measure, (ValueError, FileNotFoundError))
    if result is None:
        return status
    result.update(checkpoint=args.checkpoint, data=str(args.data), seconds=round(time.monotonic() - start, 1))
    if launch.rank() == 0:
        print(json.dumps(result, indent=2))
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=2) + "\n")
    launch.shutdown_distributed()
    return 0
